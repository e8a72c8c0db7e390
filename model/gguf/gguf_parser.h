// ParseGguf: the header of one GGUF file, from bytes to typed metadata and tensor descriptions.
//
// Pure: reads `bytes` only, allocates no more than a small multiple of what it has actually read.
#ifndef DOVETAIL_MODEL_GGUF_GGUF_PARSER_H_
#define DOVETAIL_MODEL_GGUF_GGUF_PARSER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

struct GgufShard {
  uint32_t version = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;  // file order, keys are unique
  std::vector<GgufTensor> tensors;                          // file order, names are unique
  uint64_t header_bytes = 0;  // up to the end of the tensor descriptions
};

// `name` stands at the head of every message, with the byte offset. On success all tensors' bytes
// lie inside `bytes`, aligned and without overlap; otherwise all tensors with problems are listed.
absl::StatusOr<GgufShard> ParseGguf(absl::Span<const uint8_t> bytes, const std::string& name);

// A name from a file, in quotes and harmless for a terminal: control characters and invalid UTF-8
// escaped, cut off when long.
std::string QuoteName(absl::string_view name);

// `problems` as the lines of one message: "head:" and one indented line each; beyond `limit` only
// their number.
std::string ListProblems(absl::string_view head, absl::Span<const std::string> problems,
                         size_t limit);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_GGUF_PARSER_H_
