// RuleSet: a rules file, parsed and checked: a list of `match` and `place`, first match wins.
//
//   - match: {layers: 0-14}                       # layers: N, A-B, or a list of these
//     place: cpu:0
//   - match: {role: [embedding, norm, lm_head]}   # embedding, attention, mlp, norm, lm_head;
//     place: cpu:1                                # router, shared_experts, experts: parts of mlp
//   - match: {layers: 3-5, experts: 0-3}          # these experts of layers that have any
//     place: cpu:0
//
// A rule matches a module if all its conditions do. Parsing reports every mistake as
// "file:line:col: message" with the nearest known key.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/route.h"

namespace dovetail::coordinator {

struct Rule {
  std::vector<std::pair<int, int>> layers;   // inclusive ranges; empty: any
  std::vector<OpKind> roles;                 // empty: any
  std::vector<std::pair<int, int>> experts;  // of kExperts alone; empty: any
  std::string place;
  std::string location;         // "file:line:col" of the rule
  std::string place_location;   // of its `place` value
  std::string layers_location;  // of its `layers` value, empty without

  // The whole op: every expert of a range.
  bool Matches(const Op& op) const;
};

struct RuleSet {
  std::string file;
  std::vector<Rule> rules;
};

absl::StatusOr<RuleSet> LoadRules(const std::string& path);
absl::StatusOr<RuleSet> ParseRules(const std::string& text, const std::string& file_name);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_SET_H_
