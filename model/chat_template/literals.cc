#include "model/chat_template/literals.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// \xNN, \uNNNN and \UNNNNNNNN; `*at` is at the letter and moves behind the digits.
absl::Status AppendHexEscape(absl::string_view body, size_t* at, std::string* out) {
  const int digits = body[*at] == 'x' ? 2 : body[*at] == 'u' ? 4 : 8;
  char32_t code_point = 0;
  for (int i = 1; i <= digits; ++i) {
    const int digit = *at + i < body.size() ? HexDigit(body[*at + i]) : -1;
    if (digit < 0) return absl::InvalidArgumentError("truncated escape in a string");
    code_point = code_point << 4 | static_cast<char32_t>(digit);
  }
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
    return absl::InvalidArgumentError("escape of no character in a string");
  }
  AppendUtf8(code_point, out);
  *at += digits + 1;
  return absl::OkStatus();
}

// A simple escape's character, or 0.
char SimpleEscape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

}  // namespace

absl::StatusOr<std::string> UnescapeString(absl::string_view body) {
  std::string out;
  for (size_t at = 0; at < body.size();) {
    const char c = body[at];
    if (c != '\\' || at + 1 >= body.size()) {
      out.push_back(c);
      ++at;
      continue;
    }
    const char escape = body[++at];
    if (const char simple = SimpleEscape(escape); simple != 0) {
      out.push_back(simple);
      ++at;
    } else if (escape == '\n') {
      ++at;
    } else if (escape == 'x' || escape == 'u' || escape == 'U') {
      DT_RETURN_IF_ERROR(AppendHexEscape(body, &at, &out));
    } else if (escape == 'N') {
      return absl::InvalidArgumentError("named characters (\\N{...}) are not supported");
    } else if (IsOctal(escape)) {
      char32_t code_point = 0;
      for (int i = 0; i < 3 && at < body.size() && IsOctal(body[at]); ++i, ++at) {
        code_point = code_point * 8 + static_cast<char32_t>(body[at] - '0');
      }
      AppendUtf8(code_point, &out);
    } else {
      out.push_back('\\');  // and the character itself in the next round
    }
  }
  return out;
}

namespace {

// Digits of `base` with single underscores between, appended to `*digits`; their length.
size_t ReadDigits(absl::string_view text, int base, std::string* digits) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t digit_at = text[at] == '_' && !digits->empty() ? at + 1 : at;
    const int digit = digit_at < text.size() ? HexDigit(text[digit_at]) : -1;
    if (digit < 0 || digit >= base) break;
    digits->push_back(text[digit_at]);
    at = digit_at + 1;
  }
  return at;
}

absl::StatusOr<int64_t> ParseInteger(absl::string_view digits, int base) {
  int64_t value = 0;
  for (char c : digits) {
    if (__builtin_mul_overflow(value, static_cast<int64_t>(base), &value) ||
        __builtin_add_overflow(value, static_cast<int64_t>(HexDigit(c)), &value)) {
      return absl::InvalidArgumentError(absl::StrCat("the number ", digits, " is too large"));
    }
  }
  return value;
}

int PrefixBase(absl::string_view text) {
  if (text.size() < 3 || text[0] != '0') return 10;
  const int base = text[1] == 'x' || text[1] == 'X'   ? 16
                   : text[1] == 'o' || text[1] == 'O' ? 8
                   : text[1] == 'b' || text[1] == 'B' ? 2
                                                      : 10;
  return base != 10 && HexDigit(text[2]) >= 0 && HexDigit(text[2]) < base ? base : 10;
}

}  // namespace

absl::StatusOr<NumberLiteral> ReadNumber(absl::string_view text, bool after_dot) {
  NumberLiteral literal;
  std::string digits;
  if (const int base = PrefixBase(text); base != 10) {
    literal.length = 2 + ReadDigits(text.substr(2), base, &digits);
    DT_ASSIGN_OR_RETURN(literal.integer, ParseInteger(digits, base));
    return literal;
  }
  size_t at = ReadDigits(text, 10, &digits);
  std::string float_text = digits;
  const auto digit_at = [&](size_t i) { return i < text.size() && absl::ascii_isdigit(text[i]); };
  if (!after_dot) {
    size_t float_end = at;
    if (float_end < text.size() && text[float_end] == '.' && digit_at(float_end + 1)) {
      std::string fraction;
      float_end += 1 + ReadDigits(text.substr(float_end + 1), 10, &fraction);
      absl::StrAppend(&float_text, ".", fraction);
    }
    if (float_end < text.size() && (text[float_end] == 'e' || text[float_end] == 'E')) {
      const size_t sign = float_end + 1;
      const bool signed_exponent = sign < text.size() && (text[sign] == '+' || text[sign] == '-');
      const size_t first = sign + (signed_exponent ? 1 : 0);
      if (digit_at(first)) {
        std::string exponent;
        const size_t length = ReadDigits(text.substr(first), 10, &exponent);
        absl::StrAppend(&float_text, "e", text.substr(sign, first - sign), exponent);
        float_end = first + length;
      }
    }
    if (float_end > at) {
      literal.length = float_end;
      literal.is_float = true;
      if (!absl::SimpleAtod(float_text, &literal.number)) {
        return absl::InvalidArgumentError(absl::StrCat("bad number ", float_text));
      }
      return literal;
    }
  }
  literal.length = at;
  DT_ASSIGN_OR_RETURN(literal.integer, ParseInteger(digits, 10));
  return literal;
}

}  // namespace dovetail::model::jinja
