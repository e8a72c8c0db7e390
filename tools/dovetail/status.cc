#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "dovetail/v1/admin.grpc.pb.h"
#include "tools/dovetail/client.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/segment_times.h"

namespace dovetail::tools {
namespace {

constexpr std::chrono::seconds kTimeout(5);

struct StatusFlags {
  ClientFlags client;
  std::string model;
  bool quiet = false;
};

std::string StateText(v1::ServingState state) {
  const std::string name = v1::ServingState_Name(state);
  const absl::string_view word = absl::StripPrefix(name, "SERVING_STATE_");
  return absl::StrReplaceAll(absl::AsciiStrToLower(word), {{"_", " "}});
}

// Empty where there is none yet.
v1::GetPlanResponse PlanOf(v1::AdminService::Stub* stub, const ClientFlags& flags,
                           const std::string& model) {
  grpc::ClientContext context;
  PrepareCall(flags, kTimeout, &context);
  v1::GetPlanRequest request;
  request.set_model(model);
  v1::GetPlanResponse plan;
  const grpc::Status status = stub->GetPlan(&context, request, &plan);
  return status.ok() ? plan : v1::GetPlanResponse();
}

// One model's; with several, each by itself.
void Print(const v1::GetStatusResponse& r, v1::AdminService::Stub* stub, const ClientFlags& flags) {
  if (r.models_size() > 0) {
    std::printf("%s  %d models  up %.0f s\n", StateText(r.state()).c_str(), r.models_size(),
                r.uptime_seconds());
    for (const v1::GetStatusResponse& model : r.models()) {
      std::printf("\n");
      Print(model, stub, flags);
    }
    return;
  }
  std::printf("%s  model %s  epoch %llu  up %.0f s\n", StateText(r.state()).c_str(),
              r.model().c_str(), static_cast<unsigned long long>(r.epoch()), r.uptime_seconds());
  if (!r.message().empty()) std::printf("%s\n", r.message().c_str());
  std::printf("sequences %u running, %u waiting   KV blocks %u of %u   tokens %llu in, %llu out\n",
              r.running_sequences(), r.waiting_sequences(), r.kv_blocks_used(), r.kv_blocks_total(),
              static_cast<unsigned long long>(r.prompt_tokens()),
              static_cast<unsigned long long>(r.generated_tokens()));
  std::printf("prefix cache %llu of %llu prompt tokens found   preempted %llu   steps %llu\n",
              static_cast<unsigned long long>(r.prefix_cached_tokens()),
              static_cast<unsigned long long>(r.prefix_queried_tokens()),
              static_cast<unsigned long long>(r.preemptions()),
              static_cast<unsigned long long>(r.steps()));
  std::printf("%-10s %-9s %-8s %7s %10s %10s %10s %10s %9s %10s %9s %8s\n", "worker", "state",
              "isa", "threads", "planned", "in place", "in use", "peak", "read", "steps", "busy",
              "restarts");
  for (const v1::WorkerStatus& w : r.workers()) {
    std::printf(
        "%-10s %-9s %-8s %7u %7.0f MB %7.0f MB %7.0f MB %7.0f MB %4.1f GB/s %10llu %7.1f s "
        "%8u\n",
        w.name().c_str(), w.attached() ? "attached" : "gone", w.isa().c_str(), w.num_threads(),
        static_cast<double>(w.planned_bytes()) / 1e6, static_cast<double>(w.mapped_bytes()) / 1e6,
        static_cast<double>(w.resident_bytes()) / 1e6,
        static_cast<double>(w.peak_resident_bytes()) / 1e6, w.read_bandwidth_gb_per_s(),
        static_cast<unsigned long long>(w.steps()),
        static_cast<double>(w.busy_microseconds()) / 1e6, w.restarts());
  }
  std::printf("%s", SegmentTimesTable(r, PlanOf(stub, flags, r.model())).c_str());
}

int ShowStatus(const StatusFlags& flags) {
  const auto channel = Dial(flags.client);
  if (!channel.ok()) return ReportError(channel.status());
  auto stub = v1::AdminService::NewStub(*channel);
  grpc::ClientContext context;
  PrepareCall(flags.client, kTimeout, &context);
  v1::GetStatusRequest request;
  request.set_model(flags.model);
  v1::GetStatusResponse response;
  const grpc::Status status = stub->GetStatus(&context, request, &response);
  if (!status.ok()) return ReportError(ClientStatus(status, flags.client));
  if (flags.quiet) {
    std::printf("%s\n", StateText(response.state()).c_str());
  } else {
    Print(response, stub.get(), flags.client);
  }
  return 0;
}

}  // namespace

void AddStatus(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command = app->add_subcommand("status", "State, workers and queue of a running server");
  AddClientFlags(command, &flags->client);
  command->add_option("--model", flags->model, "only this model (default: all)");
  command->add_flag("--quiet,-q", flags->quiet, "only the state, in one word or two");
  command->callback([flags, exit_code] { *exit_code = ShowStatus(*flags); });
}

}  // namespace dovetail::tools
