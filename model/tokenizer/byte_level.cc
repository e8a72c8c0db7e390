#include "model/tokenizer/byte_level.h"

#include <array>

#include "model/tokenizer/utf8.h"

namespace dovetail::model {
namespace {

constexpr int kHighestChar = 0x143;  // 0x100 + the 68 bytes that are not printable - 1

constexpr bool IsPrintableLatin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<char32_t, 256> to_char{};
  std::array<int16_t, kHighestChar + 1> to_byte{};
};

constexpr Tables MakeTables() {
  Tables tables;
  for (auto& byte : tables.to_byte) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = IsPrintableLatin1(byte) ? byte : next++;
    tables.to_char[byte] = static_cast<char32_t>(code_point);
    tables.to_byte[code_point] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

char32_t ByteLevelChar(uint8_t byte) { return kTables.to_char[byte]; }

std::optional<uint8_t> ByteLevelByte(char32_t code_point) {
  if (code_point > kHighestChar || kTables.to_byte[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.to_byte[code_point]);
}

std::string ToByteLevel(absl::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (char byte : bytes) AppendUtf8(ByteLevelChar(static_cast<uint8_t>(byte)), &text);
  return text;
}

std::string FromByteLevel(absl::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    const std::optional<uint8_t> byte =
        step.valid ? ByteLevelByte(step.code_point) : std::optional<uint8_t>();
    if (byte.has_value()) {
      bytes.push_back(static_cast<char>(*byte));
    } else {
      bytes.append(text.data() + at, step.length);
    }
    at += step.length;
  }
  return bytes;
}

}  // namespace dovetail::model
