// llama.cpp's --override-tensor: PATTERN=BUFFER,..., where a tensor of the GGUF file lies in the
// buffer of the first pattern that matches its name anywhere (std::regex, ECMAScript).
//
// Text is taken as people write it: quotes that a shell would remove, spaces after commas and a
// comma at the end are not part of patterns. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_TENSOR_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_TENSOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/placement/bounded_regex.h"
#include "coordinator/placement/diagnostic.h"

namespace dovetail::coordinator {

struct TensorOverride {
  std::string pattern;
  std::string device;  // "cpu", "cuda:1"
  std::shared_ptr<const BoundedRegex> regex;
};

struct TensorOverrides {
  std::vector<TensorOverride> entries;  // the first that matches counts
  std::vector<Diagnostic> diagnostics;  // bad-override, bad-regex, odd-pattern
  // The entry for a tensor, nullptr where none matches.
  const TensorOverride* Find(absl::string_view tensor) const;
};

// `arguments`: one for each time the flag was given.
TensorOverrides ParseTensorOverrides(absl::Span<const std::string> arguments);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_TENSOR_H_
