// RulesText: rules of our own form that place modules as a placement does, as few as there can be
// without patterns: for a person to edit. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULES_TEXT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULES_TEXT_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/placement/placement.h"

namespace dovetail::coordinator {

// Every module must have a device. The text can be read back: it gives the same devices.
std::string RulesText(absl::Span<const ModulePlacement> modules);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULES_TEXT_H_
