// ModuleTree: the modules of a model as KTransformers' rules see them: dotted names in the order of
// a depth-first walk, each with its Python class and the classes that this one derives from.
//
// Experts are alike, so a tree may hold the first of a layer's experts for all of them
// (`num_experts` of the list above it). A tree comes from a file (ReadModuleTree) or is built in
// (builtin_tree.h). Immutable once made; plain data and pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_MODULE_TREE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_MODULE_TREE_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::coordinator::ktransformers {

struct PythonClass {
  std::string path;              // "torch.nn.modules.linear.Linear"
  std::vector<std::string> mro;  // itself, then everything it derives from
};

struct Module {
  std::string name;     // "" is the root, then "model", "model.layers.0.mlp"
  int class_index = 0;  // in ModuleTree::classes
  int end = 0;          // number of the first module after this one's descendants
  int num_experts = 0;  // of a list of which only child "0" is held: how many there are
  bool owns_weights = false;
};

struct ModuleTree {
  std::vector<PythonClass> classes;
  std::vector<Module> modules;  // pre-order
  // Whether a class in a rule is compared by its last names alone ("modeling_deepseek_v3.MoEGate"):
  // the tree is built in, and stands for models that different packages define.
  bool by_last_names = false;

  const std::string& ClassOf(const Module& module) const {
    return classes[module.class_index].path;
  }
};

// Adds modules one after another and keeps `end` right.
class ModuleTreeBuilder {
 public:
  // Defines or finds a class. `bases` come after the class itself in its mro.
  int AddClass(absl::string_view path, std::vector<std::string> bases);
  // The parent must have been added, and no module outside it since then. InvalidArgument if not.
  absl::StatusOr<Module*> AddModule(absl::string_view name, int class_index);
  ModuleTree Finish() &&;

 private:
  ModuleTree tree_;
  std::vector<int> open_;  // the last module and those above it
  absl::flat_hash_map<std::string, int> class_numbers_;
};

// Does `module` fit a rule that filters by this class: is it one, or derived from one? A rule names
// a class by its import path; "torch.nn.Linear" is "torch.nn.modules.linear.Linear". A name without
// a dot is compared with the last part alone.
bool IsInstance(const ModuleTree& tree, const PythonClass& python_class,
                absl::string_view rule_class);

// The form of KTransformers' dumped trees: {"class_mro": {CLASS: [CLASS, ...]}, "modules": {NAME:
// {"class", "params"}}, "collapsed_experts": {NAME: COUNT}}, modules in pre-order.
// InvalidArgument: "file: message".
absl::StatusOr<ModuleTree> ReadModuleTree(absl::string_view json, const std::string& file);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_MODULE_TREE_H_
