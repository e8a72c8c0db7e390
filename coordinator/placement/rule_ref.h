// RuleRef: the rule of a file that decided something. Plain data.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_REF_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_REF_H_

#include <string>

#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {

struct RuleRef {
  std::string file;
  int line = 0;  // from 1
  int col = 0;
  int index = 0;  // of the rule in its file, from 0
  std::string location() const { return absl::StrCat(file, ":", line, ":", col); }
  bool operator==(const RuleRef&) const = default;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_REF_H_
