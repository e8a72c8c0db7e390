#include "coordinator/placement/plan_json.h"

#include <nlohmann/json.hpp>

#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;

Json DevicesJson(const Plan& plan) {
  Json list = Json::array();
  for (const PlacedWorker& worker : plan.workers) {
    const model::WorkerMemory& memory = worker.memory;
    list.push_back({{"name", worker.device.name},
                    {"capacity", worker.device.budget()},
                    {"weights_stored", memory.weights_stored},
                    {"weights_packed", memory.weights_packed},
                    {"weights_mapped", memory.weights_mapped},
                    {"kv", memory.kv},
                    {"workspace", memory.workspace + memory.staging},
                    {"communication", memory.communication},
                    {"runtime", memory.runtime},
                    {"peak_load", memory.peak_load()},
                    {"peak_run", memory.total()}});
  }
  return list;
}

// Null where one device computes all rows.
Json SplitJson(const std::vector<Member>& members) {
  if (members.empty()) return nullptr;
  Json list = Json::array();
  for (const Member& member : members) {
    list.push_back({{"device", member.worker}, {"share", member.share}});
  }
  return list;
}

Json ModulesJson(const Plan& plan) {
  Json list = Json::array();
  for (const PlacedModule& module : plan.modules) {
    Json rule = nullptr;
    if (module.rule) {
      rule = {
          {"file", module.rule->file}, {"line", module.rule->line}, {"index", module.rule->index}};
    }
    list.push_back({{"name", module.module},
                    {"device", module.device},
                    {"split", SplitJson(module.members)},
                    {"op", module.op_name},
                    {"rule", std::move(rule)}});
  }
  return list;
}

// `hop_bytes`: what one token brings to this segment.
Json RouteJson(const model::ModelConfig& config, const Plan& plan) {
  Json list = Json::array();
  for (const Segment& segment : plan.route) {
    list.push_back({{"device", segment.worker},
                    {"split", SplitJson(segment.members)},
                    {"modules", CollapseModules(config, segment.ops)},
                    {"hop_bytes", list.empty() ? 0 : HopBytes(config, 1)}});
  }
  return list;
}

Json SpeedJson(const PlanSpeed& speed) {
  const auto basis = [](Basis b) { return b == Basis::kGiven ? "given" : "assumed"; };
  Json devices = Json::array();
  for (const DeviceSpeed& device : speed.devices) {
    devices.push_back({{"name", device.name},
                       {"bytes_per_s", device.bandwidth},
                       {"bytes_per_s_basis", basis(device.bandwidth_basis)},
                       {"upload_bytes_per_s", device.upload_bandwidth},
                       {"upload_bytes_per_s_basis", basis(device.upload_basis)},
                       {"int8_ops_per_s", device.int8_ops},
                       {"int8_ops_per_s_basis", basis(device.ops_basis)},
                       {"decode_s", device.decode_seconds}});
  }
  return {{"decode_tokens_per_s", speed.decode_tokens_per_s},
          {"batched_decode_tokens_per_s", speed.batched_decode_tokens_per_s},
          {"prefill_tokens_per_s", speed.prefill_tokens_per_s},
          {"streamed_prefill_tokens_per_s", speed.streamed_prefill_tokens_per_s},
          {"streamed_from_tokens", speed.streamed_from_tokens},
          {"context", speed.context},
          {"hops_s", speed.hop_seconds},
          {"devices", std::move(devices)}};
}

Json SuggestionsJson(const std::vector<Suggestion>& suggestions) {
  Json list = Json::array();
  for (const Suggestion& suggestion : suggestions) {
    Json settings = Json::object();
    for (const auto& [name, value] : suggestion.settings) settings[name] = value;
    list.push_back({{"settings", std::move(settings)}, {"message", suggestion.message}});
  }
  return list;
}

}  // namespace

std::string PlanJson(const model::ModelConfig& config, const Plan& plan, const PlanSpeed& speed,
                     const std::vector<Suggestion>& suggestions) {
  const bool usable = !HasErrors(plan.diagnostics);
  const Json json = {{"version", kVersion},
                     {"fits", usable && Fits(plan)},
                     {"devices", DevicesJson(plan)},
                     {"modules", ModulesJson(plan)},
                     {"route", RouteJson(config, plan)},
                     {"speed", usable ? SpeedJson(speed) : Json(nullptr)},
                     {"diagnostics", Json::parse(DiagnosticsJson(plan.diagnostics))},
                     {"suggestions", SuggestionsJson(suggestions)}};
  // Names quote files, which may hold anything.
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dovetail::coordinator
