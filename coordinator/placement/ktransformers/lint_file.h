// LintText: lint for the text of a rules file of either form, from YAML mistakes on. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_FILE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/ktransformers/module_tree.h"

namespace dovetail::coordinator::ktransformers {

// What is known of the model and the machine.
struct LintTarget {
  const ModuleTree* tree = nullptr;  // null: the rules are only read
  const DeviceMap& device_map;
  absl::Span<const DeviceInfo> devices;
  int64_t hidden_size = 0;
  std::function<int64_t(absl::string_view)> bytes_of;
};

// All diagnostics, sorted. A file of our own form is only read here: the plan checks it against the
// model.
std::vector<Diagnostic> LintText(const std::string& text, const std::string& file,
                                 const LintTarget& target);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_FILE_H_
