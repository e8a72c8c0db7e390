// Predicted speed of a plan: what its devices must read and compute for a token, over what they
// can. An upper bound that ignores everything but memory, arithmetic and hops. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

// Where a device's figures are from.
enum class Basis { kGiven, kAssumed };

struct DeviceSpeed {
  std::string name;
  double bandwidth = 0;  // bytes per second
  double int8_ops = 0;   // multiplications and additions per second
  Basis bandwidth_basis = Basis::kGiven;
  Basis ops_basis = Basis::kGiven;
  double decode_seconds = 0;  // of one token of one sequence
};

struct PlanSpeed {
  double decode_tokens_per_s = 0;          // one sequence, at `context` tokens
  double batched_decode_tokens_per_s = 0;  // max_batch_size sequences, all devices busy
  double prefill_tokens_per_s = 0;         // chunks of chunk_size tokens
  int64_t context = 0;
  double hop_seconds = 0;  // of one token's route
  std::vector<DeviceSpeed> devices;
};

PlanSpeed PredictSpeed(const model::ModelConfig& config, const Plan& plan);

// Bytes of weights that `rows` rows of one step read from an op: all of them, but of experts only
// those that are chosen (as if choices were even), of an embedding a row each.
double BytesRead(const model::ModelConfig& config, const PlacedModule& module, int64_t rows);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_
