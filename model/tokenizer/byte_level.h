// The byte alphabet of GPT-2's BPE: every byte is written as one printable character, so that a
// vocabulary is text. Fixed tables, any thread.
#ifndef DOVETAIL_MODEL_TOKENIZER_BYTE_LEVEL_H_
#define DOVETAIL_MODEL_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace dovetail::model {

// The character that stands for a byte: itself where printable Latin-1, else U+0100 and up.
char32_t ByteLevelChar(uint8_t byte);
// The byte that a character stands for.
std::optional<uint8_t> ByteLevelByte(char32_t code_point);

// Bytes to their characters, and back. A character outside the alphabet is kept as it is (added
// tokens are written plainly).
std::string ToByteLevel(absl::string_view bytes);
std::string FromByteLevel(absl::string_view text);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_BYTE_LEVEL_H_
