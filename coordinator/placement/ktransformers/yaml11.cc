#include "coordinator/placement/ktransformers/yaml11.h"

#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// yes, Yes, YES, but not yEs.
bool IsWord(absl::string_view text, absl::string_view lower) {
  if (text == lower || text == absl::AsciiStrToUpper(lower)) return true;
  std::string capital(lower);
  capital[0] = absl::ascii_toupper(static_cast<unsigned char>(capital[0]));
  return text == capital;
}

bool ConsistsOf(absl::string_view text, absl::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == absl::string_view::npos;
}

std::optional<int64_t> ParseDigits(absl::string_view digits, int base) {
  const std::string plain = absl::StrReplaceAll(digits, {{"_", ""}});
  if (plain.empty()) return std::nullopt;
  int64_t value = 0;
  for (char c : plain) {
    const int digit = absl::ascii_isdigit(static_cast<unsigned char>(c))
                          ? c - '0'
                          : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10;
    if (value > (std::numeric_limits<int64_t>::max() - digit) / base) return std::nullopt;
    value = value * base + digit;
  }
  return value;
}

// 1:30 is 90: digits to the base of sixty.
std::optional<int64_t> ParseSexagesimal(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  if (parts[0].empty() || parts[0][0] < '1' || parts[0][0] > '9') return std::nullopt;
  int64_t value = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!ConsistsOf(parts[i], i == 0 ? "0123456789_" : "0123456789")) return std::nullopt;
    if (i > 0 && (parts[i].size() > 2 || (parts[i].size() == 2 && parts[i][0] > '5'))) {
      return std::nullopt;
    }
    const std::optional<int64_t> part = ParseDigits(parts[i], 10);
    if (!part || value > (std::numeric_limits<int64_t>::max() - *part) / 60) return std::nullopt;
    value = value * 60 + *part;
  }
  return value;
}

std::optional<int64_t> ParseUnsigned(absl::string_view text) {
  if (text == "0") return 0;
  if (absl::StartsWith(text, "0b")) {
    return ConsistsOf(text.substr(2), "01_") ? ParseDigits(text.substr(2), 2) : std::nullopt;
  }
  if (absl::StartsWith(text, "0x")) {
    return ConsistsOf(text.substr(2), "0123456789abcdefABCDEF_") ? ParseDigits(text.substr(2), 16)
                                                                 : std::nullopt;
  }
  if (absl::StartsWith(text, "0")) {
    return ConsistsOf(text, "01234567_") ? ParseDigits(text, 8) : std::nullopt;
  }
  if (text.find(':') != absl::string_view::npos) return ParseSexagesimal(text);
  const bool starts = !text.empty() && text[0] >= '1' && text[0] <= '9';
  return starts && ConsistsOf(text, "0123456789_") ? ParseDigits(text, 10) : std::nullopt;
}

std::optional<double> ParseFloat(absl::string_view text, double sign) {
  if (IsWord(text.substr(text.empty() ? 0 : 1), "inf") && text[0] == '.') {
    return sign * std::numeric_limits<double>::infinity();
  }
  // YAML 1.1 wants a point: 1e3 is a text. An exponent has its sign.
  const size_t point = text.find('.');
  if (point == absl::string_view::npos || text.size() < 2) return std::nullopt;
  const absl::string_view before = text.substr(0, point);
  if (!before.empty() && (!ConsistsOf(before, "0123456789_") || before[0] == '_')) {
    return std::nullopt;
  }
  absl::string_view fraction = text.substr(point + 1);
  const size_t e = fraction.find_first_of("eE");
  if (e != absl::string_view::npos) {
    const absl::string_view exponent = fraction.substr(e + 1);
    if (exponent.empty() || (exponent[0] != '+' && exponent[0] != '-') ||
        !ConsistsOf(exponent.substr(1), "0123456789")) {
      return std::nullopt;
    }
    fraction = fraction.substr(0, e);
  }
  if (!fraction.empty() && !ConsistsOf(fraction, "0123456789_")) return std::nullopt;
  if (before.empty() && (fraction.empty() || fraction[0] == '_')) return std::nullopt;
  double value = 0;
  if (!absl::SimpleAtod(absl::StrReplaceAll(text, {{"_", ""}}), &value)) return std::nullopt;
  return sign * value;
}

}  // namespace

Yaml11Value ResolveYaml11(const YamlNode& node) {
  if (node.kind != YamlKind::kScalar) return std::monostate();
  const std::string& text = node.scalar;
  if (!node.plain) return text;
  if (text.empty() || text == "~" || IsWord(text, "null")) return std::monostate();
  for (absl::string_view word : {"yes", "true", "on"}) {
    if (IsWord(text, word)) return true;
  }
  for (absl::string_view word : {"no", "false", "off"}) {
    if (IsWord(text, word)) return false;
  }
  const bool signed_text = text[0] == '-' || text[0] == '+';
  const absl::string_view digits = absl::string_view(text).substr(signed_text ? 1 : 0);
  const int sign = text[0] == '-' ? -1 : 1;
  if (const std::optional<int64_t> whole = ParseUnsigned(digits)) return sign * *whole;
  if (const std::optional<double> number = ParseFloat(digits, sign)) return *number;
  return text;
}

bool IsTrueInPython(const YamlNode& node) {
  if (node.kind == YamlKind::kList) return !node.items.empty();
  if (node.kind == YamlKind::kMap) return !node.entries.empty();
  const Yaml11Value value = ResolveYaml11(node);
  if (const bool* b = std::get_if<bool>(&value)) return *b;
  if (const int64_t* i = std::get_if<int64_t>(&value)) return *i != 0;
  if (const double* d = std::get_if<double>(&value)) return *d != 0;
  if (const std::string* s = std::get_if<std::string>(&value)) return !s->empty();
  return false;
}

std::optional<std::string> TextOf(const YamlNode& node) {
  Yaml11Value value = ResolveYaml11(node);
  if (std::string* text = std::get_if<std::string>(&value)) return std::move(*text);
  return std::nullopt;
}

const YamlNode* FindLast(const YamlNode& map, absl::string_view key) {
  const YamlNode* found = nullptr;
  for (const YamlEntry& entry : map.entries) {
    if (entry.key == key) found = &entry.value;
  }
  return found;
}

}  // namespace dovetail::coordinator::ktransformers
