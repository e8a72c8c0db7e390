#include "coordinator/placement/device_assigner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/op_choice.h"
#include "coordinator/placement/rule_split.h"

namespace dovetail::coordinator {
namespace {

bool IsCuda(const DeviceInfo& device) { return device.kind == DeviceKind::kCuda; }

// The k-th of the GPU workers for "cuda:k", a worker by its own name otherwise.
const DeviceInfo* FindMeant(const std::vector<DeviceInfo>& devices, absl::string_view name) {
  absl::string_view number = name;
  int index = 0;
  if (!absl::ConsumePrefix(&number, "cuda:") || !absl::SimpleAtoi(number, &index)) {
    return FindDevice(devices, name);
  }
  for (const DeviceInfo& device : devices) {
    if (IsCuda(device) && index-- == 0) return &device;
  }
  return nullptr;
}

void SetDevice(const DeviceInfo& device, ModulePlacement* module) {
  module->device = device.name;
  module->op_name = OpName(module->op, "", device);
}

}  // namespace

DeviceAssigner::DeviceAssigner(const model::ModelConfig& config, const model::GgufFile& file,
                               const std::vector<DeviceInfo>& devices, std::string source,
                               Placement* placement)
    : config_(config),
      file_(file),
      devices_(devices),
      source_(std::move(source)),
      placement_(*placement) {}

void DeviceAssigner::Assign(const std::string& device, ModulePlacement* module) {
  if (device == "cpu") {
    on_cpu_.push_back(module);
  } else if (const DeviceInfo* found = FindMeant(devices_, device)) {
    SetDevice(*found, module);
  } else if (absl::StartsWith(device, "cuda:")) {
    missing_gpus_.insert(device);
  } else if (missing_.insert(device).second) {
    ReportMissing(device, *module);
  }
}

void DeviceAssigner::Finish() {
  SpreadOverCpus();
  CheckGpuCount();
}

void DeviceAssigner::Report(absl::string_view code, const RuleRef* at, std::string message) {
  placement_.diagnostics.push_back({std::string(code), Severity::kError, source_,
                                    at == nullptr ? 0 : at->line, at == nullptr ? 0 : at->col,
                                    std::move(message)});
}

void DeviceAssigner::ReportMissing(const std::string& device, const ModulePlacement& module) {
  const RuleRef* at = module.rule ? &*module.rule : nullptr;
  const std::string kind = device.substr(0, device.find(':'));
  if (kind == "npu" || kind == "xpu") {
    return Report("unsupported-device", at,
                  absl::StrCat("the rules place modules on `", device, "`, but there are workers ",
                               "for CPUs and NVIDIA GPUs alone; --map ", kind,
                               ":*=cpu:0 places them on a CPU worker"));
  }
  Report("unknown-device", at,
         absl::StrCat("there is no worker `", device, "`; known: ", DeviceNames(devices_)));
}

// Runs of whole layers; what is before the layers belongs to the first, what is after to the last.
void DeviceAssigner::SpreadOverCpus() {
  if (on_cpu_.empty()) return;
  std::vector<const DeviceInfo*> cpus;
  std::vector<double> weights;
  for (const DeviceInfo& device : devices_) {
    if (device.has_gpu_kernels()) continue;
    cpus.push_back(&device);
    weights.push_back(std::max<double>(1.0, static_cast<double>(device.budget())));
  }
  if (cpus.empty()) {
    return Report("unknown-device", nullptr,
                  absl::StrCat("the rules place modules on `cpu`, but there is no CPU worker; "
                               "known: ",
                               DeviceNames(devices_)));
  }
  std::vector<double> sizes;
  std::vector<size_t> unit_of;
  int layer = -1;
  for (const ModulePlacement* module : on_cpu_) {
    const bool same =
        !sizes.empty() && (module->op.layer < 0 || layer < 0 || module->op.layer == layer);
    if (!same) sizes.push_back(0);
    if (module->op.layer >= 0) layer = module->op.layer;
    sizes.back() += static_cast<double>(StoredBytesOf(config_, file_, module->op));
    unit_of.push_back(sizes.size() - 1);
  }
  const std::vector<int> runs = SplitInProportion(sizes, weights);
  for (size_t i = 0; i < on_cpu_.size(); ++i) SetDevice(*cpus[runs[unit_of[i]]], on_cpu_[i]);
}

void DeviceAssigner::CheckGpuCount() {
  if (missing_gpus_.empty()) return;
  const auto num_gpus = std::count_if(devices_.begin(), devices_.end(), IsCuda);
  const std::string there = num_gpus == 0   ? "are no GPU workers"
                            : num_gpus == 1 ? "is 1 GPU worker"
                                            : absl::StrCat("are ", num_gpus, " GPU workers");
  const std::string other = num_gpus == 0 ? ""
                                          : absl::StrCat("--map ", *missing_gpus_.begin(),
                                                         "=cuda:0 uses another for it, ");
  Report("unknown-device", nullptr,
         absl::StrCat("the rules use ", absl::StrJoin(missing_gpus_, ", "), ", but there ", there,
                      "; ", other, "--map cuda:*=cpu:0 uses the CPU for all"));
}

}  // namespace dovetail::coordinator
