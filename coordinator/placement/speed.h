// Predicted speed of a plan: what its devices must read and compute for a token, over what they
// can. An upper bound that ignores everything but memory, arithmetic and hops. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_

#include <cstdint>
#include <vector>

#include "coordinator/placement/step_time.h"

namespace dovetail::coordinator {

struct PlanSpeed {
  double decode_tokens_per_s = 0;          // one sequence, at `context` tokens
  double batched_decode_tokens_per_s = 0;  // max_batch_size sequences, all devices busy
  double prefill_tokens_per_s = 0;         // chunks of chunk_size tokens
  // The same where GPU workers stream the experts of CPU workers, whether or not they are asked to;
  // 0: there is nothing to stream.
  double streamed_prefill_tokens_per_s = 0;
  // From how many tokens of a step on `stream_experts: auto` would; 0: not in steps of chunk_size.
  int64_t streamed_from_tokens = 0;
  int64_t context = 0;
  double hop_seconds = 0;  // of one token's route
  std::vector<DeviceSpeed> devices;
};

PlanSpeed PredictSpeed(const model::ModelConfig& config, const Plan& plan);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_SPEED_H_
