// dovetail plan, dovetail explain: what serve would do with a model, from headers alone.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/cpu_topology.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "coordinator/budget_check.h"
#include "coordinator/config_flags.h"
#include "coordinator/configured_rules.h"
#include "coordinator/loaded_model.h"
#include "coordinator/local_devices.h"
#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_json.h"
#include "coordinator/placement/plan_text.h"
#include "coordinator/placement/rules_text.h"
#include "kernels/bandwidth.h"
#include "model/memory_plan.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/rule_model.h"

namespace dovetail::tools {
namespace {

using coordinator::DeviceInfo;
using coordinator::Diagnostic;
using coordinator::Plan;

constexpr int kBadInput = 2;
constexpr int kDoesNotFit = 3;

struct Flags {
  coordinator::ConfigFlags config;
  std::vector<std::string> devices;
  std::string model_config;  // a Hugging Face configuration in place of a model
  std::string weight_type = "Q4_K";
  bool json = false;
  std::string emit_rules;
  std::string module;  // of explain
};

struct PlanInput {
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
  std::optional<coordinator::RuleSet> rules;
  std::vector<DeviceInfo> devices;
  StepShape shape;
};

// All workers of this machine read from one memory: each has its share.
void MeasureBandwidth(std::vector<DeviceInfo>* devices) {
  int threads = 0;
  for (const DeviceInfo& device : *devices) {
    if (HostOf(device.name).empty()) threads += device.num_threads;
  }
  if (threads == 0) return;
  ThreadPool pool(threads, {});
  const double all = 1e9 * kernels::MeasureReadBandwidth(&pool, model::kMeasureBytes);
  for (DeviceInfo& device : *devices) {
    if (HostOf(device.name).empty()) device.bandwidth = all * device.num_threads / threads;
  }
}

absl::StatusOr<coordinator::ServeConfig> ReadConfig(const Flags& flags) {
  DT_ASSIGN_OR_RETURN(coordinator::ServeConfig config,
                      flags.config.Load(/*needs_model=*/flags.model_config.empty()));
  if (config.models.size() > 1 && !(flags.model_config.empty() && flags.emit_rules.empty())) {
    return absl::InvalidArgumentError(
        "--model-config and --emit-rules are for one model; the configuration has several");
  }
  return config;
}

// What a GPU has, or another host, only its worker learns.
absl::Status CheckKnown(const std::vector<DeviceInfo>& devices) {
  for (const DeviceInfo& device : devices) {
    if (device.memory_bytes > 0) continue;
    if (device.kind != coordinator::DeviceKind::kCuda && HostOf(device.name).empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--workers: the memory of ", device.name,
        " is not known before its worker runs; describe "
        "all devices in place of --workers, as in --device ",
        device.name, device.kind == coordinator::DeviceKind::kCuda ? ":24GiB:sm89" : ":64GiB",
        " --device cpu:0:64GiB"));
  }
  return absl::OkStatus();
}

absl::StatusOr<PlanInput> ReadInput(const Flags& flags,
                                    const coordinator::ModelSettings& settings) {
  PlanInput input;
  if (flags.devices.empty()) {
    input.devices = coordinator::LocalDevices(settings);
    DT_RETURN_IF_ERROR(CheckKnown(input.devices));
    MeasureBandwidth(&input.devices);
  } else {
    DT_ASSIGN_OR_RETURN(input.devices, coordinator::ParseDeviceSpecs(flags.devices));
    for (DeviceInfo& device : input.devices) {
      if (device.kind == coordinator::DeviceKind::kCpu) {
        device.layout = coordinator::LocalLayout(settings);
      }
      const auto budget = settings.memory.find(device.name);
      if (budget == settings.memory.end()) continue;
      device.memory_bytes = std::min(device.memory_bytes, budget->second);
    }
  }
  model::ModelFile opened;
  if (flags.model_config.empty()) {
    DT_ASSIGN_OR_RETURN(opened, model::OpenModelFile(settings.model));
  } else {
    DT_ASSIGN_OR_RETURN(opened, OpenModelConfig(flags.model_config, flags.weight_type));
  }
  input.file = std::move(opened.file);
  input.config = std::move(opened.config);
  DT_ASSIGN_OR_RETURN(input.rules, coordinator::LoadConfiguredRules(settings));
  DT_ASSIGN_OR_RETURN(input.shape, coordinator::MakeStepShape(settings, input.config));
  if (input.rules) {
    coordinator::ApplyKvTypes(*input.rules, input.config.num_hidden_layers, &input.shape);
  }
  return input;
}

Plan MakePlan(const PlanInput& input) {
  return coordinator::PlanByRules(input.config, *input.file, input.rules ? &*input.rules : nullptr,
                                  input.devices, input.shape);
}

void PrintDiagnostics(const std::vector<Diagnostic>& diagnostics) {
  for (const Diagnostic& diagnostic : diagnostics) {
    std::fprintf(stderr, "%s\n", coordinator::FormatDiagnostic(diagnostic).c_str());
  }
}

std::string Heading(const coordinator::ModelSettings& model) {
  return absl::StrCat("model ", coordinator::ModelNameOf(model));
}

// What was wrong before there was a plan, in the form of a plan.
int ReportInJson(const absl::Status& status) {
  Plan plan;
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    plan.diagnostics.push_back({.code = "bad-input",
                                .severity = coordinator::Severity::kError,
                                .message = std::string(line)});
  }
  std::printf("%s\n", coordinator::PlanJson({}, plan, {}, {}).c_str());
  return ReportError(status);
}

// The plan's placement as rules: to edit, and to give back with --rules.
absl::Status WriteRules(const Plan& plan, const std::string& path) {
  const std::vector<coordinator::ModulePlacement> modules(plan.modules.begin(), plan.modules.end());
  const std::string text = coordinator::RulesText(modules);
  if (path == "-") {
    std::printf("%s", text.c_str());
    return absl::OkStatus();
  }
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  return out ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
}

int PlanModel(const Flags& flags, const coordinator::ModelSettings& settings) {
  const absl::StatusOr<PlanInput> input = ReadInput(flags, settings);
  if (!input.ok()) {
    return flags.json ? ReportInJson(input.status()) : ReportError(input.status());
  }
  const Plan plan = MakePlan(*input);
  const bool usable = !coordinator::HasErrors(plan.diagnostics);
  coordinator::PlanSpeed speed;
  std::vector<coordinator::Suggestion> suggestions;
  if (usable) {
    speed = coordinator::PredictSpeed(input->config, plan);
    suggestions = coordinator::NearestFits(input->config, *input->file, plan);
  }
  if (flags.json) {
    std::printf("%s\n", coordinator::PlanJson(input->config, plan, speed, suggestions).c_str());
  } else {
    PrintDiagnostics(plan.diagnostics);
    if (usable) {
      std::printf("%s", coordinator::PlanText(input->config, plan, speed, suggestions).c_str());
    }
  }
  if (!usable) return kBadInput;
  if (!flags.emit_rules.empty()) {
    if (const absl::Status s = WriteRules(plan, flags.emit_rules); !s.ok()) return ReportError(s);
  }
  return coordinator::Fits(plan) ? 0 : kDoesNotFit;
}

// The budgets of several models together: on this machine, or on each of the described devices.
absl::Status CheckSharedMemory(const Flags& flags,
                               const std::vector<coordinator::ModelSettings>& models) {
  std::map<std::string, int64_t> available;
  if (flags.devices.empty()) {
    available[coordinator::kThisMachine] = static_cast<int64_t>(ReadMemoryInfo().available_bytes);
  } else {
    DT_ASSIGN_OR_RETURN(const auto devices, coordinator::ParseDeviceSpecs(flags.devices));
    for (const DeviceInfo& device : devices) available[device.name] = device.budget();
  }
  std::vector<coordinator::WorkerBudget> budgets;
  for (const coordinator::ModelSettings& model : models) {
    for (const auto& [worker, bytes] : model.memory) {
      budgets.push_back({coordinator::ModelNameOf(model), worker, bytes,
                         flags.devices.empty() ? coordinator::kThisMachine : worker});
    }
  }
  return CheckBudgets(budgets, available);
}

// Several models one after the other: with a heading each, or as an array.
int RunPlan(const Flags& flags) {
  const absl::StatusOr<coordinator::ServeConfig> config = ReadConfig(flags);
  if (!config.ok()) {
    return flags.json ? ReportInJson(config.status()) : ReportError(config.status());
  }
  const std::vector<coordinator::ModelSettings> models = config->Models();
  if (models.size() == 1) return PlanModel(flags, models[0]);
  int worst = 0;
  for (const coordinator::ModelSettings& model : models) {
    const char* separator = &model == &models.front() ? "[" : ",";
    std::printf("%s\n", flags.json ? separator : Heading(model).c_str());
    const int code = PlanModel(flags, model);
    // A mistake says more than what does not fit.
    if (worst != kBadInput && code != 0) worst = code;
  }
  if (flags.json) std::printf("]\n");
  const absl::Status shared = CheckSharedMemory(flags, models);
  return shared.ok() || worst == kBadInput ? worst : ReportError(shared);
}

int ExplainModel(const Flags& flags, const coordinator::ModelSettings& settings) {
  const absl::StatusOr<PlanInput> input = ReadInput(flags, settings);
  if (!input.ok()) return ReportError(input.status());
  const Plan plan = MakePlan(*input);
  if (coordinator::HasErrors(plan.diagnostics)) {
    PrintDiagnostics(plan.diagnostics);
    return kBadInput;
  }
  const std::string text = coordinator::ExplainText(input->config, plan, flags.module);
  if (text.empty()) {
    return ReportError(absl::NotFoundError(absl::StrCat(
        "no module `", flags.module, "`; modules are named as in ", plan.modules[1].module)));
  }
  std::printf("%s", text.c_str());
  return 0;
}

int RunExplain(const Flags& flags) {
  const absl::StatusOr<coordinator::ServeConfig> config = ReadConfig(flags);
  if (!config.ok()) return ReportError(config.status());
  const std::vector<coordinator::ModelSettings> models = config->Models();
  int worst = 0;
  for (const coordinator::ModelSettings& model : models) {
    if (models.size() > 1) std::printf("%s\n", Heading(model).c_str());
    worst = std::max(worst, ExplainModel(flags, model));
  }
  return worst;
}

CLI::App* AddCommand(CLI::App* app, const char* name, const char* what, Flags* flags) {
  CLI::App* command = app->add_subcommand(name, what);
  flags->config.AddTo(command);
  command
      ->add_option("--device", flags->devices,
                   "device to plan for, such as cuda:0:24GiB:sm89:bw=1008GB/s or "
                   "cpu:0:512GiB:numa0 (default: this machine's workers)")
      ->type_name("SPEC");
  command
      ->add_option("--model-config", flags->model_config,
                   "a Hugging Face config.json in place of --model: a model that is not there yet")
      ->type_name("FILE");
  command
      ->add_option("--weight-type", flags->weight_type, "with --model-config: type of its matrices")
      ->type_name("TYPE")
      ->capture_default_str();
  return command;
}

}  // namespace

void AddPlan(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      AddCommand(app, "plan", "Show where everything would go, and whether it fits", flags.get());
  command->add_flag("--json", flags->json, "machine-readable");
  command
      ->add_option("--emit-rules", flags->emit_rules,
                   "write the placement as rules, to be edited and given back; -: to the output")
      ->type_name("FILE");
  command->callback([flags, exit_code] { *exit_code = RunPlan(*flags); });
}

void AddExplain(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      AddCommand(app, "explain", "Say why a module is where it is in the plan", flags.get());
  command->add_option("module", flags->module, "such as model.layers.3.mlp")->required();
  command->callback([flags, exit_code] { *exit_code = RunExplain(*flags); });
}

}  // namespace dovetail::tools
