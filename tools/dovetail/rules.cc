#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/gzip.h"
#include "base/status_macros.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"

namespace dovetail::tools {
namespace {

namespace kt = coordinator::ktransformers;

constexpr uint64_t kMostRuleBytes = 1 << 20;
constexpr uint64_t kMostTreeBytes = 256 << 20;

struct Flags {
  std::string rules;
  std::string tree;
  bool json = false;
};

absl::StatusOr<std::string> Map(const Flags& flags) {
  DT_ASSIGN_OR_RETURN(const std::string tree_text, ReadMaybeGzipped(flags.tree, kMostTreeBytes));
  DT_ASSIGN_OR_RETURN(const kt::ModuleTree tree, kt::ReadModuleTree(tree_text, flags.tree));
  DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.rules, kMostRuleBytes));
  DT_ASSIGN_OR_RETURN(const kt::RuleFile file, kt::ParseRuleFile(text, flags.rules));
  const kt::RuleMap map = kt::MapModules(tree, file);
  DT_RETURN_IF_ERROR(coordinator::ErrorsToStatus(map.errors));
  return kt::RuleMapJson(map, file) + "\n";
}

int Print(const absl::StatusOr<std::string>& text) {
  if (!text.ok()) return ReportError(text.status());
  return std::fwrite(text->data(), 1, text->size(), stdout) == text->size() ? 0 : 1;
}

}  // namespace

void AddRules(CLI::App* app, int* exit_code) {
  CLI::App* rules = app->add_subcommand("rules", "Read, check and convert placement rules");
  rules->require_subcommand(1);
  auto flags = std::make_shared<Flags>();
  CLI::App* map = rules->add_subcommand("map", "Which KTransformers rule each module gets");
  map->add_option("--rules", flags->rules, "KTransformers rule file")->required();
  map->add_option("--tree", flags->tree, "module tree, JSON or JSON.gz")->required();
  map->add_flag("--json", flags->json, "machine-readable (the only form)");
  map->callback([flags, exit_code] { *exit_code = Print(Map(*flags)); });
}

}  // namespace dovetail::tools
