#include "coordinator/placement/plan_text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

std::string RuleText(const ModulePlacement& module) {
  return module.rule ? absl::StrCat(module.rule->file, ":", module.rule->line) : "automatic";
}

// "12.0 MiB", "12.0 MiB + 1.0 GiB in place".
std::string WeightsText(int64_t packed, int64_t in_place) {
  if (in_place == 0) return FormatBytes(packed);
  return absl::StrCat(FormatBytes(packed), " + ", FormatBytes(in_place), " in place");
}

// One row for what one rule has put on one device, ops of one kind after another.
std::string ModuleTable(const model::ModelConfig& config, const Plan& plan) {
  struct Row {
    const PlacedModule* first;
    std::vector<Op> ops;
    int64_t bytes;
    int64_t in_place;
  };
  std::vector<Row> rows;
  for (const PlacedModule& module : plan.modules) {
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
      return r.first->device == module.device && r.first->members == module.members &&
             r.first->rule == module.rule;
    });
    if (row == rows.end()) {
      rows.push_back({&module, {module.op}, module.packed_bytes, module.in_place_bytes});
    } else {
      row->ops.push_back(module.op);
      row->bytes += module.packed_bytes;
      row->in_place += module.in_place_bytes;
    }
  }
  std::vector<std::vector<std::string>> table = {{"modules", "device", "weights", "rule"}};
  for (const Row& row : rows) {
    table.push_back({DescribeOps(config, row.ops), DeviceText(*row.first),
                     WeightsText(row.bytes, row.in_place), RuleText(*row.first)});
  }
  return FormatTable(table);
}

std::string HopText(const model::ModelConfig& config, const Plan& plan) {
  const size_t hops = plan.route.size() + 1;
  return absl::StrCat(hops, " hops for each step, ", plan.route.size() - 1,
                      " of them with activations of ", HopBytes(config, 1), " bytes a token");
}

std::string Rate(double value, Basis basis, double unit, const char* name) {
  return absl::StrFormat("%.0f %s%s", value / unit, name,
                         basis == Basis::kGiven ? "" : " (assumed)");
}

// What streaming the experts of CPU workers brings, or would.
std::string StreamingText(const Plan& plan, const PlanSpeed& speed) {
  if (speed.streamed_prefill_tokens_per_s == 0) return "";
  const std::string from =
      speed.streamed_from_tokens == 0
          ? absl::StrCat("not faster in steps of `chunk_size` (",
                         plan.shape.max_rows - plan.shape.max_sequences, ")")
          : absl::StrCat("faster in steps of ", speed.streamed_from_tokens, " tokens and more");
  return absl::StrFormat(
      "  with experts streamed (`stream_experts`, %s): prefill %.0f tokens/s, %s\n",
      plan.shape.stream_bytes == 0 ? "off here" : "on", speed.streamed_prefill_tokens_per_s, from);
}

std::string SpeedText(const Plan& plan, const PlanSpeed& speed) {
  const bool uploads = speed.streamed_prefill_tokens_per_s > 0;
  std::vector<std::string> devices;
  for (const DeviceSpeed& device : speed.devices) {
    devices.push_back(absl::StrCat(device.name, " ",
                                   Rate(device.bandwidth, device.bandwidth_basis, 1e9, "GB/s"),
                                   ", ", Rate(device.int8_ops, device.ops_basis, 1e9, "Gop/s")));
    if (!uploads || device.upload_bandwidth == 0) continue;
    absl::StrAppend(&devices.back(), ", bus ",
                    Rate(device.upload_bandwidth, device.upload_basis, 1e9, "GB/s"));
  }
  return absl::StrFormat(
      "predicted, at most: decode %.1f tokens/s, with %d sequences %.1f tokens/s, prefill %.0f "
      "tokens/s\n%s  from %s\n",
      speed.decode_tokens_per_s, plan.shape.max_sequences, speed.batched_decode_tokens_per_s,
      speed.prefill_tokens_per_s, StreamingText(plan, speed), absl::StrJoin(devices, "; "));
}

std::string Head(const model::ModelConfig& config, const Plan& plan) {
  const std::string nextn =
      config.num_nextn_layers == 0
          ? ""
          : absl::StrCat("; ", config.num_nextn_layers, " for multi-token prediction left out");
  return absl::StrCat(config.name, " (", config.architecture, ", ", config.num_hidden_layers,
                      " layers", nextn, ") on ", plan.workers.size(),
                      plan.workers.size() == 1 ? " worker\n" : " workers\n");
}

bool Wanted(const std::string& module, absl::string_view name) {
  return module == name || absl::StartsWith(module, absl::StrCat(name, "."));
}

}  // namespace

std::string RouteText(const Route& route) {
  std::vector<std::string> hops = {"coordinator"};
  std::vector<std::string> at;
  for (const Segment& segment : route) at.push_back(SegmentText(segment));
  for (size_t i = 0; i < at.size();) {
    // How often does the pair that begins here follow itself?
    size_t times = 0;
    while (i + 2 * times + 1 < at.size() && at[i] == at[i + 2 * times] &&
           at[i + 1] == at[i + 2 * times + 1]) {
      ++times;
    }
    if (times > 1) {
      hops.push_back(absl::StrCat("(", at[i], " -> ", at[i + 1], ") x ", times));
      i += 2 * times;
    } else {
      hops.push_back(at[i]);
      ++i;
    }
  }
  hops.push_back("coordinator");
  return absl::StrJoin(hops, " -> ");
}

std::string PlanText(const model::ModelConfig& config, const Plan& plan, const PlanSpeed& speed,
                     const std::vector<Suggestion>& suggestions) {
  std::string text =
      absl::StrCat(Head(config, plan), ModuleTable(config, plan), "route: ", RouteText(plan.route),
                   "\n  ", HopText(config, plan), "\n");
  int64_t kv_bytes = 0;
  for (const PlacedWorker& worker : plan.workers) kv_bytes += worker.memory.kv;
  absl::StrAppend(
      &text, "context: ", plan.shape.context_length,
      " tokens per sequence; KV cache: ", int64_t{plan.shape.num_kv_blocks} * kKvBlockTokens,
      " tokens, ", FormatBytes(kv_bytes), "; chunk_size ",
      plan.shape.max_rows - plan.shape.max_sequences, ", max_batch_size ", plan.shape.max_sequences,
      "\n", FormatMemoryTable(plan.workers), SpeedText(plan, speed));
  if (Fits(plan)) {
    absl::StrAppend(&text, "fits\n");
    return text;
  }
  absl::StrAppend(&text, "does not fit; what would:\n");
  for (const Suggestion& suggestion : suggestions) {
    absl::StrAppend(&text, "  ", suggestion.message, "\n");
  }
  return text;
}

std::string ExplainText(const model::ModelConfig& config, const Plan& plan,
                        const std::string& name) {
  std::string text;
  for (const PlacedModule& module : plan.modules) {
    if (!Wanted(module.module, name)) continue;
    absl::StrAppend(&text, module.module, "\n  device: ", DeviceText(module),
                    "\n  op: ", module.op_name, "\n  decided by: ",
                    module.rule ? absl::StrCat(module.rule->location(), " (rule ",
                                               module.rule->index + 1, " of the file)")
                                : std::string("the automatic placement"),
                    "\n  weights: ", FormatBytes(module.stored_bytes), " in the file, ",
                    WeightsText(module.packed_bytes, module.in_place_bytes), " in memory\n");
    for (const model::WeightSpec& spec : model::WeightsOf(config, module.op)) {
      absl::StrAppend(&text, "    ", spec.tensor, "\n");
    }
  }
  return text;
}

}  // namespace dovetail::coordinator
