// UTF-8: lengths, strict checks and decoding for the tokenizer and the chat template.
//
// "Valid" means RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. Pure functions.
#ifndef DOVETAIL_MODEL_TOKENIZER_UTF8_H_
#define DOVETAIL_MODEL_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace dovetail::model {

// What stands at the start of `bytes` (which is not empty).
struct Utf8Step {
  int length = 1;           // bytes to go on by; of a broken character, its maximal valid beginning
  bool valid = false;       // a whole character
  bool incomplete = false;  // not valid, but more bytes could complete it
  char32_t code_point = 0xFFFD;
};
Utf8Step DecodeUtf8(absl::string_view bytes);

// The offset of the first byte that is not part of a valid character, or npos.
size_t FindInvalidUtf8(absl::string_view text);

void AppendUtf8(char32_t code_point, std::string* out);

// Appends `bytes` to `*out` with every broken character as U+FFFD and returns how many bytes were
// used: all of them if `final`, else all but an incomplete character at the end.
size_t AppendLossyUtf8(absl::string_view bytes, bool final, std::string* out);

// Bytes of the character that starts at a byte of valid UTF-8.
inline int Utf8Length(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_UTF8_H_
