// RuleFile: KTransformers' rules as they stand in a file, with what is odd about each.
//
// A list of {match: {name, class}, replace: {class, kwargs}, recursive}. Reading is as lenient as
// KTransformers is: a rule that could only fail when a module reaches it keeps its mistake
// (`match_error`, `replace_error`) for rule_map.h and lint.h. Immutable once read; plain data.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_FILE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_FILE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/bounded_regex.h"
#include "coordinator/placement/diagnostic.h"

namespace dovetail::coordinator::ktransformers {

struct Place {
  int line = 0;
  int col = 0;
};

struct Rule {
  int index = 0;  // from 0, in the order of the file
  Place place;    // of the list's item

  std::optional<std::string> name;  // the pattern; nothing: any name
  Place name_place;
  std::shared_ptr<const BoundedRegex> pattern;  // null without a name and for a bad one
  std::string match_class;                      // empty: any class
  Place match_class_place;

  std::string op = "default";  // replace.class: a class path, or "default"
  Place op_place;
  // The entries of replace.kwargs, each key once; a null kwargs has none.
  std::vector<YamlEntry> kwargs;
  bool recursive = true;

  // What KTransformers would stop at: when a module's class fits, and when the rule fits.
  std::optional<Diagnostic> match_error;
  std::optional<Diagnostic> replace_error;

  const YamlNode* Kwarg(absl::string_view key) const;
  std::string Device(absl::string_view key) const;  // a text kwarg, empty where absent
};

struct RuleFile {
  std::string file;
  std::vector<Rule> rules;
  // Unknown and repeated keys, values of an odd kind: warnings that hold whatever the model is.
  std::vector<Diagnostic> diagnostics;
};

// Whether this YAML is a list in KTransformers' form rather than in our own.
bool LooksLikeRuleFile(const YamlNode& root);

// InvalidArgument, with every mistake: not YAML, or not a list.
absl::StatusOr<RuleFile> ParseRuleFile(absl::string_view text, const std::string& file);
RuleFile ReadRuleFile(const YamlNode& root, const std::string& file);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_RULE_FILE_H_
