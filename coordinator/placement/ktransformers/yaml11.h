// What PyYAML makes of a scalar: KTransformers reads its rules by YAML 1.1, where `no` is false,
// `010` is 8 and `None` is a text. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_YAML11_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_YAML11_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/yaml_reader.h"

namespace dovetail::coordinator::ktransformers {

// Null, bool, whole number, other number, text.
using Yaml11Value = std::variant<std::monostate, bool, int64_t, double, std::string>;

// Of a kScalar or kNull; lists and maps are null. Whole numbers beyond 64 bits become text.
Yaml11Value ResolveYaml11(const YamlNode& node);

// Python's bool(value): false for null, false, 0, "" and empty lists and maps.
bool IsTrueInPython(const YamlNode& node);

// The text of a string scalar, nothing for other kinds.
std::optional<std::string> TextOf(const YamlNode& node);

// The value of a key; where it is given twice, the last one counts, as in PyYAML.
const YamlNode* FindLast(const YamlNode& map, absl::string_view key);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_YAML11_H_
