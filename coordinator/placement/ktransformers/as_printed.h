// Rules as they stand on a web page that has lost its indentation: recognised, and given back in
// the form that they probably had. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_AS_PRINTED_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_AS_PRINTED_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/placement/diagnostic.h"

namespace dovetail::coordinator::ktransformers {

struct RestoredRules {
  int line = 0;  // of the first key that stands where it cannot
  int col = 0;
  std::string key;   // that key
  std::string text;  // all rules, indented: valid YAML, a list in KTransformers' form
};

// Nothing for text that is not a list of KTransformers' rules, or whose indentation is in order.
std::optional<RestoredRules> RestoreIndentation(absl::string_view text);

// The same as an error for whoever pasted it: "lost-indentation", with the probable form.
std::optional<Diagnostic> LostIndentation(absl::string_view text, const std::string& file);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_AS_PRINTED_H_
