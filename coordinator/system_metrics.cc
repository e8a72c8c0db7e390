#include "coordinator/system_metrics.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "base/cpu_topology.h"

namespace dovetail::coordinator {
namespace {

struct StateName {
  ServingState state;
  absl::string_view name;
};
constexpr StateName kStates[] = {
    {ServingState::kWaitingForWorkers, "waiting_for_workers"},
    {ServingState::kLoading, "loading"},
    {ServingState::kReady, "ready"},
    {ServingState::kRecovering, "recovering"},
    {ServingState::kDraining, "draining"},
    {ServingState::kFailed, "failed"},
};

void WriteServer(const StatusSnapshot& status, MetricsText* text) {
  text->Family("dovetail_build_info", "gauge", "1; what runs is in the labels.");
  text->Sample({{"version", DOVETAIL_VERSION}, {"model", status.model}}, uint64_t{1});
  text->Family("dovetail_state", "gauge", "1 for the state that the server is in.");
  for (const StateName& state : kStates) {
    text->Sample({{"state", state.name}}, uint64_t{state.state == status.state});
  }
  text->Single("dovetail_uptime_seconds", "gauge", "Since the coordinator started.",
               status.uptime_seconds);
  text->Family("dovetail_epoch", "gauge", "Number of the pipeline; grows with every recovery.");
  text->Sample({}, status.epoch);
  text->Family("dovetail_coordinator_memory_bytes", "gauge", "Memory of the coordinator.");
  text->Sample({{"kind", "used"}}, ResidentBytes());
  text->Sample({{"kind", "peak"}}, PeakResidentBytes());
}

void WriteEngine(const EngineStats& engine, MetricsText* text) {
  text->Single("dovetail_requests_running", "gauge", "Sequences in the KV cache.", engine.running);
  text->Single("dovetail_requests_waiting", "gauge", "Sequences that wait for room.",
               engine.waiting);
  text->Single("dovetail_requests_swapped", "gauge",
               "Of those that wait, sequences whose blocks are in the swap area.",
               engine.waiting_swapped);
  text->Family("dovetail_swap_blocks", "gauge", "Blocks of the swap area, 32 tokens each.");
  text->Sample({{"state", "used"}}, static_cast<int64_t>(engine.swap_blocks_used));
  text->Sample({{"state", "free"}},
               static_cast<int64_t>(engine.swap_blocks_total - engine.swap_blocks_used));
  text->Family("dovetail_kv_blocks", "gauge", "Blocks of the KV cache, 32 tokens each.");
  text->Sample({{"state", "used"}}, static_cast<int64_t>(engine.kv_blocks_used));
  text->Sample({{"state", "free"}},
               static_cast<int64_t>(engine.kv_blocks_total - engine.kv_blocks_used));
  text->Single("dovetail_kv_blocks_cached", "gauge",
               "Blocks whose tokens can be found again, used or free.", engine.kv_blocks_cached);
  text->Family("dovetail_prefix_cache_queries_tokens_total", "counter",
               "Prompt tokens that were looked up in the cache.");
  text->Sample({}, engine.prefix_queried_tokens);
  text->Family("dovetail_prefix_cache_hits_tokens_total", "counter",
               "Prompt tokens that were found in the cache, and not computed again.");
  text->Sample({}, engine.prefix_cached_tokens);
  text->Family("dovetail_steps_total", "counter", "Steps that the workers computed.");
  text->Sample({}, engine.steps);
  text->Family("dovetail_step_tokens_total", "counter", "Tokens that steps computed or drew.");
  text->Sample({{"kind", "prompt"}}, engine.prompt_tokens);
  text->Sample({{"kind", "generated"}}, engine.generated_tokens);
  text->Family("dovetail_preemptions_total", "counter",
               "Sequences that had to give up their blocks, by what became of these.");
  text->Sample({{"kind", "swap"}}, engine.preemptions_by_swap);
  text->Sample({{"kind", "recompute"}}, engine.preemptions - engine.preemptions_by_swap);
  text->Family("dovetail_recoveries_total", "counter", "Pipelines that came after a lost one.");
  text->Sample({}, engine.recoveries);
  text->Single("dovetail_recovery_seconds_total", "counter",
               "Time without a pipeline, from loss to recovery.", engine.recovery_seconds);
  text->Family("dovetail_interrupted_total", "counter",
               "Sequences that a lost pipeline made to begin again.");
  text->Sample({}, engine.interrupted);
  text->Single("dovetail_lanes", "gauge", "Steps that may be in flight at once.",
               engine.decode_lanes);
  text->Single("dovetail_tenants", "gauge", "Keys whose requests run or wait.", engine.tenants);
  text->Single("dovetail_predicted_wait_seconds", "gauge",
               "To the first token of a request that came now.", engine.predicted_wait_seconds);
}

// One family with a sample for every worker.
void WriteWorkers(const StatusSnapshot& status, MetricsText* text, absl::string_view name,
                  absl::string_view type, absl::string_view help,
                  const std::function<double(const WorkerSnapshot&)>& value) {
  text->Family(name, type, help);
  for (const WorkerSnapshot& worker : status.workers) {
    text->Sample({{"worker", worker.name}}, value(worker));
  }
}

void WriteWorkerMemory(const StatusSnapshot& status, MetricsText* text) {
  text->Family("dovetail_worker_memory_bytes", "gauge",
               "Memory of a worker's device: in use, planned, and the most that was in use.");
  for (const WorkerSnapshot& worker : status.workers) {
    const std::pair<absl::string_view, uint64_t> kinds[] = {{"used", worker.resident_bytes},
                                                            {"planned", worker.planned_bytes},
                                                            {"peak", worker.peak_resident_bytes}};
    for (const auto& [kind, bytes] : kinds) {
      text->Sample({{"worker", worker.name}, {"kind", kind}}, bytes);
    }
  }
}

void WriteSegments(const StatusSnapshot& status, MetricsText* text) {
  text->Family("dovetail_segment_seconds_total", "counter",
               "Time that a worker computed a segment of the route.");
  for (const WorkerSnapshot& worker : status.workers) {
    for (const SegmentSnapshot& segment : worker.segments) {
      text->Sample({{"worker", worker.name}, {"segment", absl::StrCat(segment.index)}},
                   static_cast<double>(segment.busy_microseconds) / 1e6);
    }
  }
  text->Family("dovetail_segment_steps_total", "counter",
               "Steps in which a worker computed a segment of the route.");
  for (const WorkerSnapshot& worker : status.workers) {
    for (const SegmentSnapshot& segment : worker.segments) {
      text->Sample({{"worker", worker.name}, {"segment", absl::StrCat(segment.index)}},
                   segment.steps);
    }
  }
}

}  // namespace

void WriteSystemMetrics(const StatusSnapshot& status, MetricsText* text) {
  WriteServer(status, text);
  WriteEngine(status.engine, text);
  WriteWorkers(status, text, "dovetail_worker_up", "gauge", "1 while the worker is attached.",
               [](const WorkerSnapshot& w) { return w.attached ? 1 : 0; });
  WriteWorkers(status, text, "dovetail_worker_restarts_total", "counter",
               "Times that the worker came back as a new process.",
               [](const WorkerSnapshot& w) { return w.restarts; });
  WriteWorkers(status, text, "dovetail_worker_loaded_bytes", "gauge",
               "Bytes of weights that the worker has loaded.",
               [](const WorkerSnapshot& w) { return static_cast<double>(w.load_bytes_done); });
  WriteWorkers(status, text, "dovetail_worker_load_bytes", "gauge",
               "Bytes of weights that the worker has to load.",
               [](const WorkerSnapshot& w) { return static_cast<double>(w.load_bytes_total); });
  WriteWorkerMemory(status, text);
  WriteWorkers(status, text, "dovetail_worker_steps_total", "counter",
               "Steps that the worker's process computed.",
               [](const WorkerSnapshot& w) { return static_cast<double>(w.steps); });
  WriteWorkers(status, text, "dovetail_worker_busy_seconds_total", "counter",
               "Time that the worker's process spent in steps.", [](const WorkerSnapshot& w) {
                 return static_cast<double>(w.busy_microseconds) / 1e6;
               });
  WriteSegments(status, text);
}

}  // namespace dovetail::coordinator
