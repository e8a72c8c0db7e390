#include "coordinator/placement/ktransformers/module_tree.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr size_t kMostModules = 1'000'000;
constexpr int kMostExperts = 100'000;

absl::string_view ParentName(absl::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == absl::string_view::npos ? "" : name.substr(0, dot);
}

absl::string_view LastPart(absl::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == absl::string_view::npos ? path : path.substr(dot + 1);
}

// "modeling_deepseek_v3.MoEGate" of "ktransformers.models.modeling_deepseek_v3.MoEGate".
absl::string_view LastTwoParts(absl::string_view path) {
  const size_t dot = path.rfind('.');
  if (dot == absl::string_view::npos || dot == 0) return path;
  const size_t second = path.rfind('.', dot - 1);
  return second == absl::string_view::npos ? path : path.substr(second + 1);
}

// Packages that pass on what is defined below them: `torch.nn.Linear`, `transformers.X`.
bool IsPassedOn(absl::string_view path, absl::string_view rule_class) {
  for (absl::string_view package : {"torch.nn.", "torch.nn.modules.", "transformers."}) {
    absl::string_view rest = rule_class;
    if (absl::ConsumePrefix(&rest, package) && rest.find('.') == absl::string_view::npos &&
        path.substr(0, package.size()) == package && LastPart(path) == rest) {
      return true;
    }
  }
  return false;
}

bool SameClass(const ModuleTree& tree, absl::string_view path, absl::string_view rule_class) {
  if (path == rule_class) return true;
  if (rule_class.find('.') == absl::string_view::npos) return LastPart(path) == rule_class;
  if (IsPassedOn(path, rule_class)) return true;
  return tree.by_last_names && LastTwoParts(path) == LastTwoParts(rule_class);
}

absl::Status Bad(const std::string& file, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

absl::Status ReadModule(const std::string& file, const nlohmann::json& root,
                        const std::string& name, const nlohmann::json& fields,
                        ModuleTreeBuilder* builder) {
  const auto path = fields.is_object() ? fields.find("class") : fields.end();
  if (!fields.is_object() || path == fields.end() || !path->is_string()) {
    return Bad(file, absl::StrCat("module `", name, "` has no class"));
  }
  std::vector<std::string> bases;
  const auto mros = root.find("class_mro");
  if (mros != root.end() && mros->is_object() && mros->contains(path->get<std::string>())) {
    const auto& mro = (*mros)[path->get<std::string>()];
    if (!mro.is_array()) return Bad(file, "`class_mro` must hold lists");
    for (const auto& base : mro) {
      if (!base.is_string()) return Bad(file, "`class_mro` must hold lists of names");
      if (base != *path) bases.push_back(base.get<std::string>());
    }
  }
  auto module =
      builder->AddModule(name, builder->AddClass(path->get<std::string>(), std::move(bases)));
  if (!module.ok()) return Bad(file, module.status().message());
  const auto params = fields.find("params");
  (*module)->owns_weights = params != fields.end() && params->is_object() && !params->empty();
  const auto collapsed = root.find("collapsed_experts");
  if (collapsed == root.end() || !collapsed->is_object() || !collapsed->contains(name)) {
    return absl::OkStatus();
  }
  const auto& count = (*collapsed)[name];
  if (!count.is_number_integer() || count < 1 || count > kMostExperts) {
    return Bad(file, absl::StrCat("`collapsed_experts` of `", name, "` must be a count"));
  }
  (*module)->num_experts = count.get<int>();
  return absl::OkStatus();
}

}  // namespace

int ModuleTreeBuilder::AddClass(absl::string_view path, std::vector<std::string> bases) {
  const auto [it, is_new] =
      class_numbers_.emplace(std::string(path), static_cast<int>(tree_.classes.size()));
  if (is_new) {
    bases.insert(bases.begin(), std::string(path));
    tree_.classes.push_back({std::string(path), std::move(bases)});
  }
  return it->second;
}

absl::StatusOr<Module*> ModuleTreeBuilder::AddModule(absl::string_view name, int class_index) {
  const int number = static_cast<int>(tree_.modules.size());
  if (tree_.modules.size() >= kMostModules) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMostModules, " modules"));
  }
  if (number > 0) {
    const absl::string_view parent = ParentName(name);
    while (!open_.empty() && tree_.modules[open_.back()].name != parent) {
      tree_.modules[open_.back()].end = number;
      open_.pop_back();
    }
  }
  if ((number == 0) != name.empty() || (number > 0 && open_.empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("module `", name,
                     "` does not follow its parent; modules are listed in the order of a walk "
                     "that begins with the root, \"\""));
  }
  Module module;
  module.name = std::string(name);
  module.class_index = class_index;
  tree_.modules.push_back(std::move(module));
  open_.push_back(number);
  return &tree_.modules.back();
}

ModuleTree ModuleTreeBuilder::Finish() && {
  for (int number : open_) tree_.modules[number].end = static_cast<int>(tree_.modules.size());
  return std::move(tree_);
}

bool IsInstance(const ModuleTree& tree, const PythonClass& python_class,
                absl::string_view rule_class) {
  return std::any_of(python_class.mro.begin(), python_class.mro.end(),
                     [&](const std::string& path) { return SameClass(tree, path, rule_class); });
}

absl::StatusOr<ModuleTree> ReadModuleTree(absl::string_view json, const std::string& file) {
  // Objects lose their order, so that of the modules is noted while parsing.
  std::vector<std::string> names;
  bool in_modules = false;
  const auto note = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event != nlohmann::json::parse_event_t::key) return true;
    if (depth == 1) in_modules = parsed == "modules";
    if (depth == 2 && in_modules) names.push_back(parsed.get<std::string>());
    return true;
  };
  const nlohmann::json root =
      nlohmann::json::parse(json.begin(), json.end(), note, /*allow_exceptions=*/false);
  if (root.is_discarded()) return Bad(file, "is not JSON");
  const auto modules = root.is_object() ? root.find("modules") : root.end();
  if (!root.is_object() || modules == root.end() || !modules->is_object() || modules->empty()) {
    return Bad(file, "has no `modules`; it is not a module tree");
  }
  ModuleTreeBuilder builder;
  for (const std::string& name : names) {
    if (absl::Status s = ReadModule(file, root, name, (*modules)[name], &builder); !s.ok())
      return s;
  }
  return std::move(builder).Finish();
}

}  // namespace dovetail::coordinator::ktransformers
