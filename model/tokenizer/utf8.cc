#include "model/tokenizer/utf8.h"

#include <cstring>

namespace dovetail::model {
namespace {

// Length of the character and the range that its second byte must lie in.
struct LeadByte {
  int length;
  uint8_t second_low;
  uint8_t second_high;
};

LeadByte ClassifyLead(uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};  // below: overlong
  if (lead == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
  if (lead >= 0xE1 && lead <= 0xEF) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};  // above: beyond U+10FFFF
  return {0, 0, 0};
}

}  // namespace

Utf8Step DecodeUtf8(absl::string_view bytes) {
  const auto lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {1, true, false, lead};
  const LeadByte kind = ClassifyLead(lead);
  if (kind.length == 0) return {};
  char32_t code_point = lead & (0x7F >> kind.length);
  for (int i = 1; i < kind.length; ++i) {
    if (i >= static_cast<int>(bytes.size())) return {i, false, true, 0xFFFD};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? kind.second_low : 0x80;
    const uint8_t high = i == 1 ? kind.second_high : 0xBF;
    if (byte < low || byte > high) return {i, false, false, 0xFFFD};
    code_point = code_point << 6 | (byte & 0x3F);
  }
  return {kind.length, true, false, code_point};
}

size_t FindInvalidUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    // Eight ASCII bytes at a time: the common case.
    while (at + 8 <= text.size()) {
      uint64_t word;
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080u) != 0) break;
      at += 8;
    }
    if (at == text.size()) break;
    const Utf8Step step = DecodeUtf8(text.substr(at));
    if (!step.valid) return at;
    at += step.length;
  }
  return absl::string_view::npos;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code_point >> 6));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else if (code_point < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | code_point >> 12));
    out->push_back(static_cast<char>(0x80 | (code_point >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | code_point >> 18));
    out->push_back(static_cast<char>(0x80 | (code_point >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code_point >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  }
}

size_t AppendLossyUtf8(absl::string_view bytes, bool final, std::string* out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = DecodeUtf8(bytes.substr(at));
    if (step.incomplete && !final) break;
    if (step.valid) {
      out->append(bytes.data() + at, step.length);
    } else {
      AppendUtf8(0xFFFD, out);
    }
    at += step.length;
  }
  return at;
}

}  // namespace dovetail::model
