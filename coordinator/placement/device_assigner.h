// DeviceAssigner: from devices as KTransformers and llama.cpp name them to the workers that there
// are: "cuda:2" is the third GPU worker, "cpu" is the CPU worker, or all CPU workers, which share
// its layers in order and in proportion to what fits there; other names are workers' own.
//
// Used by one thread, for one placement: Assign for each module in execution order, then Finish.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_ASSIGNER_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_ASSIGNER_H_

#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/placement.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

class DeviceAssigner {
 public:
  // `source`: the file or flag that diagnostics name. All arguments must outlive this object.
  DeviceAssigner(const model::ModelConfig& config, const model::GgufFile& file,
                 const std::vector<DeviceInfo>& devices, std::string source, Placement* placement);

  // `module` is one of the placement's; its rule, if it has one, is where a mistake is shown.
  void Assign(const std::string& device, ModulePlacement* module);

  // Places what goes to "cpu", and reports devices that are not there: unknown-device,
  // unsupported-device.
  void Finish();

 private:
  void Report(absl::string_view code, const RuleRef* at, std::string message);
  void ReportMissing(const std::string& device, const ModulePlacement& module);
  void SpreadOverCpus();
  void CheckGpuCount();

  const model::ModelConfig& config_;
  const model::GgufFile& file_;
  const std::vector<DeviceInfo>& devices_;
  const std::string source_;
  Placement& placement_;
  std::vector<ModulePlacement*> on_cpu_;
  std::set<std::string> missing_gpus_;
  std::set<std::string> missing_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_ASSIGNER_H_
