// NearestFits: what would have to change for a plan that does not fit, computed by trying. Pure
// function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_SUGGESTIONS_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_SUGGESTIONS_H_

#include <string>
#include <utility>
#include <vector>

#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

struct Suggestion {
  // Settings and the values with which the plan fits: {"kv_tokens", "288"}. For layers that move:
  // {"layers", "27-30"}, {"from", "cuda:0"}, {"to", "cpu:0"}.
  std::vector<std::pair<std::string, std::string>> settings;
  std::string message;  // "kv_tokens 288 with context_length 256"
};

// For a plan that does not fit: of each setting the nearest value with which it would, alone: a
// smaller KV cache (and context), another KV type, a smaller chunk, a smaller batch, layers moved
// from the tight device to one with room, weights that CPU workers read in place. Where none is
// enough alone, the mildest combination. Where nothing helps, one that says so with the bytes,
// without settings.
std::vector<Suggestion> NearestFits(const model::ModelConfig& config, const model::GgufFile& file,
                                    const Plan& plan);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_SUGGESTIONS_H_
