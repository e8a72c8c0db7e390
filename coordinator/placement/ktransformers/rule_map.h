// RuleMap: which rule each module of a tree gets, exactly as KTransformers' injector decides it.
//
// The walk is depth first; each visited module gets the first rule that fits, or none; a rule that
// is not recursive ends the walk below its module. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_MAP_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_MAP_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/rule_file.h"

namespace dovetail::coordinator::ktransformers {

constexpr absl::string_view kDefaultDevice = "cuda:0";  // of modules that no rule fits

struct MapEntry {
  std::string name;
  int module = 0;  // in the tree; of an expert after the first, the first one's
  int rule = -1;   // -1: none fits
  bool recursive = true;
  bool owns_experts = false;  // its op has the weights of all experts below it, recursive or not
};

struct RuleMap {
  std::vector<MapEntry> entries;  // in the order of the walk
  // Lists of experts whose entries are all alike, so that only the first expert has them.
  std::vector<std::string> collapsed;
  std::vector<Diagnostic> errors;  // of the rules that modules reached

  // The entry of this module, or of the nearest module above it that has one: below a rule that is
  // not recursive, that rule's op owns everything. nullptr for a name outside the tree.
  const MapEntry* Find(absl::string_view name) const;
  // The entry that decides where this module's weights are: that of the op that has the experts
  // above it, or else Find().
  const MapEntry* FindOwner(absl::string_view name) const;

  std::vector<int> by_name;  // entries sorted by name, for Find
};

RuleMap MapModules(const ModuleTree& tree, const RuleFile& file);

// Does this one rule fit a module, whatever other rules do? A pattern that is too expensive or bad
// fits nothing.
bool Fits(const ModuleTree& tree, const Module& module, const Rule& rule);

// {"modules": {NAME: {"op", "generate_device", "prefill_device", "generate_op", "prefill_op",
// "other_kwargs", "rule_index", "recursive"}}}; what the kwargs lack is null, and `other_kwargs` is
// there only if there are any.
std::string RuleMapJson(const RuleMap& map, const RuleFile& file);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_MAP_H_
