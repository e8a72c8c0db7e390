#include "coordinator/system_metrics.h"

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/process_memory.h"

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
  for (const StatusSnapshot& model : ModelsOf(status)) {
    text->Sample({{"version", DOVETAIL_VERSION}, {"model", model.model}}, uint64_t{1});
  }
  text->Family("dovetail_state", "gauge", "1 for the state that the server is in.");
  for (const StateName& state : kStates) {
    text->Sample({{"state", state.name}}, uint64_t{state.state == status.state});
  }
  text->Single("dovetail_uptime_seconds", "gauge", "Since the coordinator started.",
               status.uptime_seconds);
  text->Family("dovetail_coordinator_memory_bytes", "gauge", "Memory of the coordinator.");
  text->Sample({{"kind", "used"}}, ResidentBytes());
  text->Sample({{"kind", "peak"}}, PeakResidentBytes());
}

// Families with samples for every model.
class ModelFamilies {
 public:
  ModelFamilies(absl::Span<const StatusSnapshot> models, MetricsText* text)
      : models_(models), text_(*text) {}

  using Value = std::function<double(const EngineStats&)>;
  void Single(absl::string_view name, absl::string_view type, absl::string_view help,
              const Value& value) {
    text_.Family(name, type, help);
    for (const StatusSnapshot& model : models_) {
      text_.Sample({{"model", model.model}}, value(model.engine));
    }
  }

  struct Labelled {
    absl::string_view label;
    Value value;
  };
  void Labels(absl::string_view name, absl::string_view type, absl::string_view help,
              absl::string_view key, const std::vector<Labelled>& samples) {
    text_.Family(name, type, help);
    for (const StatusSnapshot& model : models_) {
      for (const Labelled& sample : samples) {
        text_.Sample({{"model", model.model}, {key, sample.label}}, sample.value(model.engine));
      }
    }
  }

  // Of all workers.
  void Workers(absl::string_view name, absl::string_view type, absl::string_view help,
               const std::function<double(const WorkerSnapshot&)>& value) {
    text_.Family(name, type, help);
    for (const StatusSnapshot& model : models_) {
      for (const WorkerSnapshot& worker : model.workers) {
        text_.Sample({{"model", model.model}, {"worker", worker.name}}, value(worker));
      }
    }
  }

  // Of all segments of their routes.
  void Segments(absl::string_view name, absl::string_view help,
                const std::function<double(const SegmentSnapshot&)>& value) {
    text_.Family(name, "counter", help);
    for (const StatusSnapshot& model : models_) {
      for (const WorkerSnapshot& worker : model.workers) {
        for (const SegmentSnapshot& segment : worker.segments) {
          text_.Sample({{"model", model.model},
                        {"worker", worker.name},
                        {"segment", absl::StrCat(segment.index)}},
                       value(segment));
        }
      }
    }
  }

 private:
  const absl::Span<const StatusSnapshot> models_;
  MetricsText& text_;
};

void WriteModelStates(absl::Span<const StatusSnapshot> models, MetricsText* text) {
  text->Family("dovetail_model_state", "gauge", "1 for the state that the model is in.");
  for (const StatusSnapshot& model : models) {
    for (const StateName& state : kStates) {
      text->Sample({{"model", model.model}, {"state", state.name}},
                   uint64_t{state.state == model.state});
    }
  }
  text->Family("dovetail_epoch", "gauge", "Number of the pipeline; grows with every recovery.");
  for (const StatusSnapshot& model : models) {
    text->Sample({{"model", model.model}}, model.epoch);
  }
}

double Number(uint64_t count) { return static_cast<double>(count); }

void WriteQueueAndCache(ModelFamilies* families) {
  using Stats = const EngineStats&;
  families->Single("dovetail_requests_running", "gauge", "Sequences in the KV cache.",
                   [](Stats s) { return s.running; });
  families->Single("dovetail_requests_waiting", "gauge", "Sequences that wait for room.",
                   [](Stats s) { return s.waiting; });
  families->Single("dovetail_requests_swapped", "gauge",
                   "Of those that wait, sequences whose blocks are in the swap area.",
                   [](Stats s) { return s.waiting_swapped; });
  families->Labels("dovetail_swap_blocks", "gauge", "Blocks of the swap area, 32 tokens each.",
                   "state",
                   {{"used", [](Stats s) { return s.swap_blocks_used; }},
                    {"free", [](Stats s) { return s.swap_blocks_total - s.swap_blocks_used; }}});
  families->Labels("dovetail_kv_blocks", "gauge", "Blocks of the KV cache, 32 tokens each.",
                   "state",
                   {{"used", [](Stats s) { return s.kv_blocks_used; }},
                    {"free", [](Stats s) { return s.kv_blocks_total - s.kv_blocks_used; }}});
  families->Single("dovetail_kv_blocks_cached", "gauge",
                   "Blocks whose tokens can be found again, used or free.",
                   [](Stats s) { return s.kv_blocks_cached; });
  families->Single("dovetail_prefix_cache_queries_tokens_total", "counter",
                   "Prompt tokens that were looked up in the cache.",
                   [](Stats s) { return Number(s.prefix_queried_tokens); });
  families->Single("dovetail_prefix_cache_hits_tokens_total", "counter",
                   "Prompt tokens that were found in the cache, and not computed again.",
                   [](Stats s) { return Number(s.prefix_cached_tokens); });
}

void WriteSteps(ModelFamilies* families) {
  using Stats = const EngineStats&;
  families->Single("dovetail_steps_total", "counter", "Steps that the workers computed.",
                   [](Stats s) { return Number(s.steps); });
  families->Single("dovetail_streamed_steps_total", "counter",
                   "Steps for which GPU workers streamed the experts of CPU workers.",
                   [](Stats s) { return Number(s.streamed_steps); });
  families->Labels("dovetail_step_tokens_total", "counter", "Tokens that steps computed or drew.",
                   "kind",
                   {{"prompt", [](Stats s) { return Number(s.prompt_tokens); }},
                    {"generated", [](Stats s) { return Number(s.generated_tokens); }}});
  families->Labels(
      "dovetail_preemptions_total", "counter",
      "Sequences that had to give up their blocks, by what became of these.", "kind",
      {{"swap", [](Stats s) { return Number(s.preemptions_by_swap); }},
       {"recompute", [](Stats s) { return Number(s.preemptions - s.preemptions_by_swap); }}});
  families->Single("dovetail_recoveries_total", "counter", "Pipelines that came after a lost one.",
                   [](Stats s) { return Number(s.recoveries); });
  families->Single("dovetail_recovery_seconds_total", "counter",
                   "Time without a pipeline, from loss to recovery.",
                   [](Stats s) { return s.recovery_seconds; });
  families->Single("dovetail_interrupted_total", "counter",
                   "Sequences that a lost pipeline made to begin again.",
                   [](Stats s) { return Number(s.interrupted); });
  families->Single("dovetail_lanes", "gauge", "Steps that may be in flight at once.",
                   [](Stats s) { return s.decode_lanes; });
  families->Single("dovetail_tenants", "gauge", "Keys whose requests run or wait.",
                   [](Stats s) { return s.tenants; });
  families->Single("dovetail_predicted_wait_seconds", "gauge",
                   "To the first token of a request that came now.",
                   [](Stats s) { return s.predicted_wait_seconds; });
}

void WriteWorkerMemory(absl::Span<const StatusSnapshot> models, MetricsText* text) {
  text->Family("dovetail_worker_memory_bytes", "gauge",
               "Memory of a worker's device: in use, planned, and the most that was in use; "
               "weights that are read from the file in place, which is not planned memory.");
  for (const StatusSnapshot& model : models) {
    for (const WorkerSnapshot& worker : model.workers) {
      const std::pair<absl::string_view, uint64_t> kinds[] = {{"used", worker.resident_bytes},
                                                              {"planned", worker.planned_bytes},
                                                              {"mapped", worker.mapped_bytes},
                                                              {"peak", worker.peak_resident_bytes}};
      for (const auto& [kind, bytes] : kinds) {
        text->Sample({{"model", model.model}, {"worker", worker.name}, {"kind", kind}}, bytes);
      }
    }
  }
}

void WriteWorkers(ModelFamilies* families) {
  using Worker = const WorkerSnapshot&;
  families->Workers("dovetail_worker_up", "gauge", "1 while the worker is attached.",
                    [](Worker w) { return w.attached ? 1 : 0; });
  families->Workers("dovetail_worker_restarts_total", "counter",
                    "Times that the worker came back as a new process.",
                    [](Worker w) { return w.restarts; });
  families->Workers("dovetail_worker_loaded_bytes", "gauge",
                    "Bytes of weights that the worker has loaded.",
                    [](Worker w) { return Number(w.load_bytes_done); });
  families->Workers("dovetail_worker_load_bytes", "gauge",
                    "Bytes of weights that the worker has to load.",
                    [](Worker w) { return Number(w.load_bytes_total); });
  families->Workers("dovetail_worker_steps_total", "counter",
                    "Steps that the worker's process computed.",
                    [](Worker w) { return Number(w.steps); });
  families->Workers("dovetail_worker_busy_seconds_total", "counter",
                    "Time that the worker's process spent in steps.",
                    [](Worker w) { return Number(w.busy_microseconds) / 1e6; });
  families->Segments("dovetail_segment_seconds_total",
                     "Time that a worker computed a segment of the route.",
                     [](const SegmentSnapshot& s) { return Number(s.busy_microseconds) / 1e6; });
  families->Segments("dovetail_segment_steps_total",
                     "Steps in which a worker computed a segment of the route.",
                     [](const SegmentSnapshot& s) { return Number(s.steps); });
}

}  // namespace

void WriteSystemMetrics(const StatusSnapshot& status, MetricsText* text) {
  const absl::Span<const StatusSnapshot> models = ModelsOf(status);
  ModelFamilies families(models, text);
  WriteServer(status, text);
  WriteModelStates(models, text);
  WriteQueueAndCache(&families);
  WriteSteps(&families);
  WriteWorkerMemory(models, text);
  WriteWorkers(&families);
}

}  // namespace dovetail::coordinator
