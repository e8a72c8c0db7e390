// What `dovetail inspect` prints of a GGUF file. Pure functions.
#ifndef DOVETAIL_MODEL_INSPECT_H_
#define DOVETAIL_MODEL_INSPECT_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

// For people: a summary, the metadata (long values cut off), a table of the tensors. Nothing that a
// file contains can send control characters to a terminal.
absl::StatusOr<std::string> InspectText(const GgufFile& file);

// For programs, a form that stays: {"version", "metadata": {KEY: {"type", "value"}},
// "tensors": [{"name", "type", "shape" (ggml's order), "offset", "bytes"}]}. An offset counts from
// the start of the tensor's own file. Array types are "array[string]"; bytes that are not UTF-8
// become U+FFFD, and NaN and infinities null.
std::string InspectJson(const GgufFile& file);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_INSPECT_H_
