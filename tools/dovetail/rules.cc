// dovetail rules: read, check and convert placement rules, without a model's weights.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/gzip.h"
#include "base/status_macros.h"
#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/ktransformers/convert.h"
#include "coordinator/placement/ktransformers/lint_file.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/rule_set.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/rule_model.h"

namespace dovetail::tools {
namespace {

namespace kt = coordinator::ktransformers;
using coordinator::Diagnostic;

constexpr int kBadInput = 2;
constexpr uint64_t kMostRuleBytes = 1 << 20;

struct Flags {
  std::string rules;
  RuleModelFlags model;
  std::vector<std::string> devices;
  std::vector<std::string> map;
  std::vector<std::string> overrides;
  bool json = false;
};

int Print(const absl::StatusOr<std::string>& text) {
  if (!text.ok()) return ReportError(text.status());
  return std::fwrite(text->data(), 1, text->size(), stdout) == text->size() ? 0 : 1;
}

absl::StatusOr<std::string> Map(const Flags& flags) {
  DT_ASSIGN_OR_RETURN(const RuleModel model, ReadRuleModel(flags.model));
  DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.rules, kMostRuleBytes));
  DT_ASSIGN_OR_RETURN(const kt::RuleFile file, kt::ParseRuleFile(text, flags.rules));
  const kt::RuleMap map = kt::MapModules(model.tree, file);
  DT_RETURN_IF_ERROR(coordinator::ErrorsToStatus(map.errors));
  return kt::RuleMapJson(map, file) + "\n";
}

// A file of our own form: against a model and devices, what a plan would say of it.
absl::StatusOr<std::vector<Diagnostic>> LintOwn(
    const Flags& flags, const coordinator::DeviceMap& map,
    const std::vector<coordinator::DeviceInfo>& devices) {
  DT_ASSIGN_OR_RETURN(const coordinator::RuleSet rules, coordinator::LoadRules(flags.rules, map));
  if (devices.empty() || (flags.model.model.empty() && flags.model.config.empty())) {
    return std::vector<Diagnostic>{
        {.code = "text-only",
         .severity = coordinator::Severity::kNote,
         .file = flags.rules,
         .message = "only the text was judged; with --model or --model-config, and --device, this "
                    "says what a plan would"}};
  }
  model::ModelFile opened;
  if (flags.model.config.empty()) {
    DT_ASSIGN_OR_RETURN(opened, model::OpenModelFile(flags.model.model));
  } else {
    DT_ASSIGN_OR_RETURN(opened, OpenModelConfig(flags.model.config, "Q4_K"));
  }
  return coordinator::PlanByRules(opened.config, *opened.file, &rules, devices, {}).diagnostics;
}

absl::StatusOr<std::vector<Diagnostic>> Lint(const Flags& flags) {
  DT_ASSIGN_OR_RETURN(const RuleModel model, ReadRuleModel(flags.model));
  DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.rules, kMostRuleBytes));
  DT_ASSIGN_OR_RETURN(const coordinator::DeviceMap map, coordinator::DeviceMap::Parse(flags.map));
  std::vector<coordinator::DeviceInfo> devices;
  if (!flags.devices.empty()) {
    DT_ASSIGN_OR_RETURN(devices, coordinator::ParseDeviceSpecs(flags.devices));
  }
  const absl::StatusOr<coordinator::RuleSet> own = coordinator::ParseRules(text, flags.rules);
  if (own.ok() && own->ktransformers == nullptr) return LintOwn(flags, map, devices);
  return kt::LintText(text, flags.rules,
                      {model.tree.modules.empty() ? nullptr : &model.tree, map, devices,
                       model.hidden_size, model.bytes_of()});
}

// Diagnostics that are no errors go to stderr, beside the rules.
absl::StatusOr<std::string> Convert(const Flags& flags) {
  if (flags.rules.empty() == flags.overrides.empty()) {
    return absl::InvalidArgumentError("give a rules file or --override-tensor");
  }
  DT_ASSIGN_OR_RETURN(const RuleModel model, ReadRuleModel(flags.model));
  if (!model.shape) {
    return absl::InvalidArgumentError("give --model or --model-config: rules are written for one");
  }
  DT_ASSIGN_OR_RETURN(const coordinator::DeviceMap map, coordinator::DeviceMap::Parse(flags.map));
  const kt::ConvertTarget target{*model.shape, model.tree, map, model.bytes_of()};
  kt::Converted converted;
  if (flags.rules.empty()) {
    converted = kt::ConvertOverrides(flags.overrides, target);
  } else {
    DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.rules, kMostRuleBytes));
    DT_ASSIGN_OR_RETURN(const kt::RuleFile file, kt::ParseRuleFile(text, flags.rules));
    converted = kt::ConvertRules(file, target);
  }
  DT_RETURN_IF_ERROR(coordinator::ErrorsToStatus(converted.diagnostics));
  for (const Diagnostic& diagnostic : converted.diagnostics) {
    std::fprintf(stderr, "%s\n", coordinator::FormatDiagnostic(diagnostic).c_str());
  }
  return converted.text;
}

int RunLint(const Flags& flags) {
  const absl::StatusOr<std::vector<Diagnostic>> diagnostics = Lint(flags);
  if (!diagnostics.ok()) return ReportError(diagnostics.status());
  if (flags.json) {
    std::printf("{\"diagnostics\": %s}\n", coordinator::DiagnosticsJson(*diagnostics).c_str());
  } else {
    for (const Diagnostic& diagnostic : *diagnostics) {
      std::printf("%s\n", coordinator::FormatDiagnostic(diagnostic).c_str());
    }
    if (diagnostics->empty()) std::printf("%s: nothing to say\n", flags.rules.c_str());
  }
  return coordinator::HasErrors(*diagnostics) ? kBadInput : 0;
}

void AddDeviceMap(CLI::App* command, Flags* flags) {
  command->add_option("--map", flags->map, "such as cuda:1=cuda:0 or cuda:*=cpu:0")
      ->delimiter(',')
      ->type_name("FROM=TO");
}

void AddMap(CLI::App* rules, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* map = rules->add_subcommand("map", "Which KTransformers rule each module gets");
  map->add_option("--rules", flags->rules, "KTransformers rule file")->required();
  AddRuleModelFlags(map, &flags->model);
  map->add_flag("--json", flags->json, "machine-readable (the only form)");
  map->callback([flags, exit_code] { *exit_code = Print(Map(*flags)); });
}

void AddLint(CLI::App* rules, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* lint = rules->add_subcommand("lint", "Everything that is odd about a rules file");
  lint->add_option("file", flags->rules, "rules file, KTransformers' form or ours")->required();
  AddRuleModelFlags(lint, &flags->model);
  lint->add_option("--device", flags->devices, "device, such as cuda:0:16GiB:sm75")
      ->type_name("SPEC");
  AddDeviceMap(lint, flags.get());
  lint->add_flag("--json", flags->json, "machine-readable");
  lint->callback([flags, exit_code] { *exit_code = RunLint(*flags); });
}

void AddConvert(CLI::App* rules, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* convert =
      rules->add_subcommand("convert", "Write the same placement in our short form");
  convert->add_option("file", flags->rules, "KTransformers rule file");
  convert->add_option("--override-tensor", flags->overrides, "llama.cpp's, such as exps=CPU")
      ->expected(1)
      ->take_all()
      ->type_name("PATTERN=BUFFER,...");
  AddRuleModelFlags(convert, &flags->model);
  AddDeviceMap(convert, flags.get());
  convert->callback([flags, exit_code] { *exit_code = Print(Convert(*flags)); });
}

}  // namespace

void AddRules(CLI::App* app, int* exit_code) {
  CLI::App* rules = app->add_subcommand("rules", "Read, check and convert placement rules");
  rules->require_subcommand(1);
  AddMap(rules, exit_code);
  AddLint(rules, exit_code);
  AddConvert(rules, exit_code);
}

}  // namespace dovetail::tools
