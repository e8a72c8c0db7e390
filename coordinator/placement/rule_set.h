// RuleSet: a rules file of our own form, parsed and checked by itself: rules that say which modules
// go where, what devices may use, and how the KV cache is stored. docs/rules.md is the reference,
// rules/schema.json the same for editors.
//
//   devices: {cuda:*: {memory: 22GiB, reserve: 1GiB}}
//   kv: {type: f16}
//   rules:                                            # or the file is this list alone
//     - match: {layers: 0-14, role: [attention, norm]}
//       place: cuda:0
//     - match: {role: experts}
//       split: {cuda:0: 24, cuda:1: 37}
//       by: layers
//
// First match wins. Parsing reports every mistake as "file:line:col: message" with the nearest
// known key; what needs the model or the devices is reported when the rules are applied
// (rule_placement.h). Plain data, immutable once parsed.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/role.h"
#include "coordinator/placement/rule_ref.h"

namespace dovetail::coordinator {

struct TensorOverrides;
namespace ktransformers {
struct RuleFile;
}

// Where in its file something stands.
struct SourcePlace {
  int line = 0;
  int col = 0;
};

// A device, or a group of devices, that takes part of what a rule matches.
struct Share {
  std::string device;  // "cuda:0", "host-b/cuda:0"; groups "cuda:*", "numa:1", "numa:*"
  double weight = 0;   // 0: as much as fits there, compared with the others
  SourcePlace at;
};

// What a split counts: layers, bytes, the experts of each layer, or the output rows of each module,
// which all devices compute together.
enum class SplitBy { kLayers, kBytes, kExperts, kRows };
absl::string_view SplitByName(SplitBy by);

struct Rule {
  Ranges layers;              // empty: any, and modules outside layers
  std::vector<Role> roles;    // empty: any
  Ranges experts;             // empty: all
  std::vector<Share> shares;  // of `place` one; a group becomes several devices
  SplitBy by = SplitBy::kBytes;
  std::string op;  // preference; empty: the device's best
  RuleRef ref;
  SourcePlace layers_at, experts_at, op_at, by_at;

  // Whether the filters fit; of a range of experts, whether they fit all of it.
  bool Matches(const Op& op) const;
};

// What the file says about a device or a group of them.
struct DeviceBudget {
  std::string device;  // as in Share
  std::optional<int64_t> memory_bytes;
  std::optional<int64_t> reserve_bytes;
  SourcePlace at;
};

struct RuleSet {
  std::string file;
  std::vector<Rule> rules;
  std::vector<DeviceBudget> budgets;
  std::optional<KvType> kv_type;
  std::vector<std::pair<Ranges, KvType>> layer_kv_types;  // the last that fits counts

  // A file in KTransformers' form: `rules` is empty then, and ktransformers/place.h applies it.
  std::shared_ptr<const ktransformers::RuleFile> ktransformers;
  // Of --override-tensor, which takes the place of a file: override_place.h applies it.
  std::shared_ptr<const TensorOverrides> overrides;
  DeviceMap device_map;  // of --map; our own rules have it applied already
};

// How the KV cache is stored, as the file says: its own types in place of the shape's.
void ApplyKvTypes(const RuleSet& rules, int num_layers, StepShape* shape);

absl::StatusOr<RuleSet> LoadRules(const std::string& path, const DeviceMap& device_map = {});
// The arguments of --override-tensor. InvalidArgument: what of them cannot be read.
absl::StatusOr<RuleSet> RulesOfOverrides(const std::vector<std::string>& arguments,
                                         const DeviceMap& device_map);
absl::StatusOr<RuleSet> ParseRules(const std::string& text, const std::string& file_name);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_
