// StatusSnapshot: what coordinator, workers, queue and KV cache are doing right now, as plain data
// for health checks, AdminService and the progress display.
#ifndef DOVETAIL_COORDINATOR_STATUS_SNAPSHOT_H_
#define DOVETAIL_COORDINATOR_STATUS_SNAPSHOT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/engine.h"

namespace dovetail::coordinator {

enum class ServingState {
  kWaitingForWorkers,
  kLoading,
  kReady,
  kRecovering,
  kDraining,
  kFailed,
};

// A segment of the route, as the worker that computes it sees it.
struct SegmentSnapshot {
  int index = 0;
  uint64_t steps = 0;
  uint64_t busy_microseconds = 0;
};

struct WorkerSnapshot {
  std::string name;
  std::string model;  // "" where there is only one
  bool attached = false;
  std::string isa;
  int num_threads = 0;
  int64_t pid = 0;
  uint64_t load_bytes_done = 0;
  uint64_t load_bytes_total = 0;
  uint64_t steps = 0;
  uint64_t busy_microseconds = 0;
  uint64_t resident_bytes = 0;
  uint64_t peak_resident_bytes = 0;  // since the process started
  uint64_t planned_bytes = 0;
  uint64_t mapped_bytes = 0;  // of the model's file, planned to be read in place: not in the former
  double read_bandwidth_gb_per_s = 0;
  int restarts = 0;
  std::vector<SegmentSnapshot> segments;
};

struct StatusSnapshot {
  ServingState state = ServingState::kWaitingForWorkers;
  std::string message;  // why, for people
  std::string model;
  uint64_t epoch = 0;
  double uptime_seconds = 0;
  EngineStats engine;
  std::vector<WorkerSnapshot> workers;
  // Of a server with several models: each by itself. The other fields are of all together; `model`
  // and `epoch` then say nothing.
  std::vector<StatusSnapshot> models;
};

// A server's status from those of its models: of one, the same; of several, their sums, and the
// state and message of the one that is furthest from ready.
StatusSnapshot CombineStatus(std::vector<StatusSnapshot> models);

// The status of every model, also where there is only one.
absl::Span<const StatusSnapshot> ModelsOf(const StatusSnapshot& status);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_STATUS_SNAPSHOT_H_
