// Other programs' placements in our own form of rules: KTransformers' files and llama.cpp's
// --override-tensor, for one model. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_CONVERT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_CONVERT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/ktransformers/tree_shape.h"

namespace dovetail::coordinator::ktransformers {

struct ConvertTarget {
  const TreeShape& shape;
  const ModuleTree& tree;
  const DeviceMap& device_map;
  std::function<int64_t(absl::string_view)> bytes_of;  // may be empty
};

struct Converted {
  std::string text;                     // empty where there is an error among the diagnostics
  std::vector<Diagnostic> diagnostics;  // what the short form cannot say, and what is wrong
};

Converted ConvertRules(const RuleFile& file, const ConvertTarget& target);

// What no pattern matches is spread over the GPUs ("cuda:*").
Converted ConvertOverrides(absl::Span<const std::string> arguments, const ConvertTarget& target);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_CONVERT_H_
