// KTransformers' operators by name: what they compute, where they run, and what they do to weights.
// Plain data and pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_OP_NAMES_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_OP_NAMES_H_

#include <vector>

#include "absl/strings/string_view.h"

namespace dovetail::coordinator::ktransformers {

enum class OpRuns { kAnywhere, kCpu, kCuda, kNpu, kXpu };

// A value of generate_op or prefill_op.
struct OpInfo {
  absl::string_view name;
  bool is_experts = false;  // else a matrix product
  OpRuns runs = OpRuns::kAnywhere;
  int least_capability = 0;  // of a CUDA device: 80 is 8.0
  int requantises_to = 0;    // bits that it makes of whatever the file holds; 0: it does not
};

const OpInfo* FindOp(absl::string_view name);  // nullptr: there is no such operator
std::vector<absl::string_view> OpNames();

// What a rule's replace.class is to us.
enum class OpClass {
  kDefault,         // keep the module, place it
  kLinear,          // a matrix product with the ops above
  kExperts,         // a layer's experts with the ops above
  kModel,           // carries transfer_map
  kImplementation,  // chose one of several Python implementations: we have our own
  kUnknown,
};
OpClass ClassifyOp(absl::string_view class_path);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_OP_NAMES_H_
