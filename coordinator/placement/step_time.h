// How long a step of a plan is predicted to take: what its devices read and multiply, over what
// they can, and the hops between them. A lower bound that ignores everything else. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_STEP_TIME_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_STEP_TIME_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

// Tokens before the one whose cost is predicted.
inline constexpr int64_t kPredictedContext = 1024;
// Between a host and its GPUs where it was not measured or given: PCIe 4.0 x16.
inline constexpr double kPcieBandwidth = 20e9;

// Where a device's figures are from.
enum class Basis { kGiven, kAssumed };

struct DeviceSpeed {
  std::string name;
  double bandwidth = 0;         // bytes per second
  double upload_bandwidth = 0;  // of a GPU, from the host's memory; others 0
  double int8_ops = 0;          // multiplications and additions per second
  Basis bandwidth_basis = Basis::kGiven;
  Basis upload_basis = Basis::kGiven;
  Basis ops_basis = Basis::kGiven;
  double decode_seconds = 0;  // of one token of one sequence
};

struct StepTime {
  std::map<std::string, double> busy;  // seconds, by device
  // Of one step alone: devices that share rows, or the experts of a layer, work at once.
  double pass = 0;
};

// Of one step of `rows` rows of `sequences` sequences. `speeds` has all of the plan's workers.
StepTime TimeStep(const model::ModelConfig& config, const Plan& plan,
                  absl::Span<const DeviceSpeed> speeds, int64_t rows, int64_t sequences);

// What such a step takes from worker to worker, from the coordinator and back, and in gathers.
double HopSeconds(const model::ModelConfig& config, const Plan& plan, int64_t rows);

// Bytes of weights that `rows` rows of one step read from an op: all of them, but of experts only
// those that are chosen (as if choices were even), of an embedding a row each.
double BytesRead(const model::ModelConfig& config, const PlacedModule& module, int64_t rows);

// Multiplications and additions for a token of a prompt: none in the head, which has one row of the
// whole prompt.
double OpsOfPrompt(const model::ModelConfig& config, const PlacedModule& module);

// Steps whose experts GPU workers stream from CPU workers (base/route.h), whether or not the plan
// has the buffers for it: all experts cross the bus while the GPU computes. Refers to what it is
// made of.
class StreamedStep {
 public:
  StreamedStep(const model::ModelConfig& config, const Plan& plan);

  bool possible() const { return possible_; }
  // With its hops; infinite if there is nothing to stream.
  double Seconds(absl::Span<const DeviceSpeed> speeds, int64_t rows, int64_t sequences) const;

 private:
  void Take(const Segment& segment, const std::string& gpu, size_t index);

  const model::ModelConfig& config_;
  const Plan& plan_;
  std::vector<std::string> gpu_of_module_;  // that streams it; empty: nobody does
  std::vector<std::string> workers_;        // of the route, as a streamed step takes it
  bool possible_ = false;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_STEP_TIME_H_
