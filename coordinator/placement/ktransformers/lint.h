// What is wrong, odd or merely good to know about a KTransformers rule file, seen against the
// modules of a model: all of it, each thing where it stands.
//
// Codes: bad-regex, expensive-regex, no-match, no-replace, bad-class, bad-rule, unknown-key,
// duplicate-key, odd-value (all from reading); dead-rule, shadowed-rule, better-order,
// layer-overlap (rule_lint.cc); unmatched, layer-hole, experts-on-gpu, router-quantised, hop,
// no-device (module_lint.cc); unknown-op, unknown-class, op-device, op-fallback, unknown-device,
// unsupported-device, short-class, own-implementation, prefill-device, transfer-map, out-device
// (op_lint.cc). Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_H_

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
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/ktransformers/rule_map.h"

namespace dovetail::coordinator::ktransformers {

// What rules are checked against.
struct LintContext {
  const RuleFile& file;
  const ModuleTree& tree;
  const RuleMap& map;
  const DeviceMap& device_map;
  absl::Span<const DeviceInfo> devices;  // empty: not known
  int64_t hidden_size = 0;               // 0: not known
  // Bytes of the weights of a module, of a layer's experts for the list of these; may be empty.
  std::function<int64_t(absl::string_view)> bytes_of;
};

// Everything, sorted. Mistakes that no module reaches are there too.
std::vector<Diagnostic> Lint(const LintContext& context);

// The parts of it (one file each).
void LintRules(const LintContext& context, std::vector<Diagnostic>* out);
void LintModules(const LintContext& context, std::vector<Diagnostic>* out);
void LintOps(const LintContext& context, std::vector<Diagnostic>* out);

// Rules in an order in which shadowed ones come before what hides them; empty where nothing is
// shadowed or no order helps. As indices of `file.rules`.
std::vector<int> BetterOrder(const ModuleTree& tree, const RuleFile& file, const RuleMap& map);

// A device as KTransformers means it: "cuda" is "cuda:0"; "" where the rule gives none.
std::string DeviceOf(const RuleFile& file, const MapEntry& entry);
std::string CanonicalDevice(absl::string_view device);

// "rule 3 (line 28)", with its index as `rule_index` has it.
std::string Describe(const Rule& rule);

// Names with neighbouring layers joined: "model.layers.0-60.{input_layernorm, mlp.gate}", at most a
// handful and then a count.
std::string JoinModules(absl::Span<const std::string> names);

// The number in "model.layers.N" or below it, -1 elsewhere.
int LayerOf(absl::string_view module);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_LINT_H_
