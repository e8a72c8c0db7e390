#include "coordinator/placement/ktransformers/convert.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "coordinator/placement/ktransformers/short_rules.h"
#include "coordinator/placement/override_tensor.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr absl::string_view kRest = "cuda:*";

// Modules whose device is not that of their role: our rules place roles as a whole.
void ReportSplits(const ConvertTarget& target, absl::Span<const RolePlace> places,
                  const std::function<std::string(absl::string_view)>& device_of,
                  const std::string& source, std::vector<Diagnostic>* out) {
  std::map<std::pair<Role, int>, std::string> device_by_role;
  for (const RolePlace& place : places) device_by_role[{place.role, place.layer}] = place.device;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> apart;
  for (const Module& module : target.tree.modules) {
    const ModuleRole role = RoleOf(target.shape, module.name);
    if (!module.owns_weights || role.is_norm) continue;
    const std::string device = device_of(module.name);
    const std::string& whole = device_by_role[{role.role, LayerOf(module.name)}];
    if (device != whole) apart[{device, whole}].push_back(module.name);
  }
  for (const auto& [devices, names] : apart) {
    out->push_back({"split-module", Severity::kWarning, source, 0, 0,
                    absl::StrCat(JoinModules(names), " would be on ", devices.first,
                                 ", the rest of the same part on ", devices.second,
                                 ", which has most of it and takes all of it")});
  }
}

}  // namespace

Converted ConvertRules(const RuleFile& file, const ConvertTarget& target) {
  Converted converted;
  const RuleMap map = MapModules(target.tree, file);
  converted.diagnostics = map.errors;
  if (HasErrors(converted.diagnostics)) return converted;
  const auto device_of = DevicesBy(file, map, target.device_map);
  const std::vector<RolePlace> places =
      RolesOf(target.shape, target.tree, device_of, target.bytes_of);
  ReportSplits(target, places, device_of, file.file, &converted.diagnostics);
  const size_t slash = file.file.rfind('/');
  converted.text = ShortRules(
      places,
      absl::StrCat("From ", file.file.substr(slash == std::string::npos ? 0 : slash + 1), ", for ",
                   target.shape.names->model_type, " with ", target.shape.num_layers, " layers."));
  return converted;
}

Converted ConvertOverrides(absl::Span<const std::string> arguments, const ConvertTarget& target) {
  Converted converted;
  const TensorOverrides overrides = ParseTensorOverrides(arguments);
  converted.diagnostics = overrides.diagnostics;
  if (HasErrors(converted.diagnostics)) return converted;
  std::map<std::string, std::string, std::less<>> devices;  // of modules
  std::set<const TensorOverride*> used;
  for (const auto& [tensor, module] : TensorsOf(target.shape)) {
    const TensorOverride* entry = overrides.Find(tensor);
    if (entry != nullptr) used.insert(entry);
    const std::string device = target.device_map.Apply(entry == nullptr ? kRest : entry->device);
    devices.emplace(module, device);
  }
  for (const TensorOverride& entry : overrides.entries) {
    if (used.count(&entry) > 0) continue;
    converted.diagnostics.push_back(
        {"never-matches", Severity::kWarning, "--override-tensor", 0, 0,
         absl::StrCat(Quoted(MakeScalar(entry.pattern)),
                      " matches no tensor that an earlier pattern has left")});
  }
  const auto device_of = [&](absl::string_view module) {
    const auto it = devices.find(std::string(module));
    return it == devices.end() ? std::string(kRest) : it->second;
  };
  const std::vector<RolePlace> places =
      RolesOf(target.shape, target.tree, device_of, target.bytes_of);
  ReportSplits(target, places, device_of, "--override-tensor", &converted.diagnostics);
  converted.text =
      ShortRules(places, absl::StrCat("From --override-tensor ", absl::StrJoin(arguments, " ")));
  return converted;
}

}  // namespace dovetail::coordinator::ktransformers
