#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/chat_template/text.h"

#include <pcre2.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

bool IsContinuation(char c) { return (c & 0xC0) == 0x80; }

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x80; });
}

// The last character's offset; `text` is not empty.
size_t LastCharacter(absl::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && IsContinuation(text[at])) --at;
  return at;
}

// PCRE2 has Unicode's properties and cases; compiled once, shared by all threads.
const pcre2_code* CompileOrDie(const char* pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr);
  DT_CHECK(code != nullptr);
  return code;
}

bool Matches(const pcre2_code* code, absl::string_view text) {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                PCRE2_NO_UTF_CHECK, data, nullptr);
  pcre2_match_data_free(data);
  return found >= 0;
}

// `replacement` is \U$0 or \L$0.
std::string MapCase(absl::string_view text, const char* replacement) {
  static const pcre2_code* const all = CompileOrDie("(?s).+");
  std::string out(text.size() * 2 + 16, '\0');  // a character's other case may be longer
  PCRE2_SIZE size = out.size();
  const int count =
      pcre2_substitute(all, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                       PCRE2_SUBSTITUTE_EXTENDED | PCRE2_NO_UTF_CHECK, nullptr, nullptr,
                       reinterpret_cast<PCRE2_SPTR>(replacement), PCRE2_ZERO_TERMINATED,
                       reinterpret_cast<PCRE2_UCHAR*>(out.data()), &size);
  if (count < 0) return std::string(text);
  out.resize(size);
  return out;
}

}  // namespace

int64_t CodePointCount(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); });
}

size_t ByteOffset(absl::string_view text, int64_t index) {
  if (index <= 0) return 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if (!IsContinuation(text[at]) && index-- == 0) return at;
  }
  return text.size();
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

absl::string_view StripText(absl::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    if (!IsSpace(step.code_point)) break;
    text.remove_prefix(step.length);
  }
  while (right && !text.empty()) {
    const size_t last = LastCharacter(text);
    if (!IsSpace(DecodeUtf8(text.substr(last)).code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

absl::string_view StripChars(absl::string_view text, absl::string_view chars, bool left,
                             bool right) {
  const auto in_set = [&](absl::string_view character) {
    for (size_t at = 0; at < chars.size(); at += Utf8Length(chars[at])) {
      if (chars.substr(at, Utf8Length(chars[at])) == character) return true;
    }
    return false;
  };
  while (left && !text.empty() && in_set(text.substr(0, Utf8Length(text[0])))) {
    text.remove_prefix(Utf8Length(text[0]));
  }
  while (right && !text.empty() && in_set(text.substr(LastCharacter(text)))) {
    text = text.substr(0, LastCharacter(text));
  }
  return text;
}

std::vector<absl::string_view> SplitSpace(absl::string_view text, int64_t max_splits) {
  std::vector<absl::string_view> parts;
  text = StripText(text, true, false);
  while (!text.empty()) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text);  // the rest, with the spaces at its end
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Utf8Step step = DecodeUtf8(text.substr(end));
      if (IsSpace(step.code_point)) break;
      end += step.length;
    }
    parts.push_back(text.substr(0, end));
    text = StripText(text.substr(end), true, false);
  }
  return parts;
}

std::vector<absl::string_view> RSplitSpace(absl::string_view text, int64_t max_splits) {
  std::vector<absl::string_view> parts;
  text = StripText(text, false, true);
  while (!text.empty()) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t last = LastCharacter(text.substr(0, begin));
      if (IsSpace(DecodeUtf8(text.substr(last)).code_point)) break;
      begin = last;
    }
    parts.push_back(text.substr(begin));
    text = StripText(text.substr(0, begin), false, true);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<absl::string_view> SplitText(absl::string_view text, absl::string_view separator,
                                         int64_t max_splits) {
  std::vector<absl::string_view> parts;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t at = text.find(separator);
    if (at == absl::string_view::npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<absl::string_view> RSplitText(absl::string_view text, absl::string_view separator,
                                          int64_t max_splits) {
  std::vector<absl::string_view> parts;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t at = text.rfind(separator);
    if (at == absl::string_view::npos) break;
    parts.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<absl::string_view> SplitLines(absl::string_view text, bool keep_ends) {
  std::vector<absl::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    const char32_t c = step.code_point;
    const size_t line_end = at;
    at += step.length;
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : line_end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

int64_t CountText(absl::string_view text, absl::string_view part) {
  if (part.empty()) return CodePointCount(text) + 1;
  int64_t count = 0;
  for (size_t at = text.find(part); at != absl::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

std::string ReplaceText(absl::string_view text, absl::string_view from, absl::string_view to,
                        int64_t max_count) {
  std::string out;
  int64_t left = max_count < 0 ? INT64_MAX : max_count;
  if (from.empty()) {  // before every character and at the end
    for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
      if (left-- > 0) out.append(to.data(), to.size());
      out.append(text.data() + at, Utf8Length(text[at]));
    }
    if (left > 0) out.append(to.data(), to.size());
    return out;
  }
  for (; left > 0; --left) {
    const size_t at = text.find(from);
    if (at == absl::string_view::npos) break;
    out.append(text.data(), at).append(to.data(), to.size());
    text.remove_prefix(at + from.size());
  }
  out.append(text.data(), text.size());
  return out;
}

std::string UpperText(absl::string_view text) {
  if (IsAscii(text)) return absl::AsciiStrToUpper(text);
  return MapCase(absl::StrReplaceAll(text, {{"\xC3\x9F", "SS"}}), "\\U$0");  // sharp s
}

std::string LowerText(absl::string_view text) {
  if (IsAscii(text)) return absl::AsciiStrToLower(text);
  return MapCase(text, "\\L$0");
}

std::string CapitalizeText(absl::string_view text) {
  if (text.empty()) return "";
  const size_t first = Utf8Length(text[0]);
  return UpperText(text.substr(0, first)) + LowerText(text.substr(first));
}

std::string TitleText(absl::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && IsAll(text.substr(end, Utf8Length(text[end])), TextClass::kAlpha)) {
      end += Utf8Length(text[end]);
    }
    if (end > at) {
      out += CapitalizeText(text.substr(at, end - at));
    } else {
      end += Utf8Length(text[end]);
      out.append(text.data() + at, end - at);
    }
    at = end;
  }
  return out;
}

bool IsAll(absl::string_view text, TextClass text_class) {
  static const pcre2_code* const patterns[] = {
      CompileOrDie("^\\p{L}++\\z"),
      CompileOrDie("^[\\p{L}\\p{N}]++\\z"),
      CompileOrDie("^\\p{Nd}++\\z"),
      nullptr,  // kSpace
      CompileOrDie("^(?=[^\\p{Lu}\\p{Lt}]*?\\p{Ll})[^\\p{Lu}\\p{Lt}]++\\z"),
      CompileOrDie("^(?=[^\\p{Ll}\\p{Lt}]*?\\p{Lu})[^\\p{Ll}\\p{Lt}]++\\z"),
  };
  if (text.empty()) return false;
  if (text_class == TextClass::kSpace) return StripText(text, true, false).empty();
  return Matches(patterns[static_cast<int>(text_class)], text);
}

bool IsPrintable(absl::string_view character) {
  static const pcre2_code* const hidden = CompileOrDie("[\\p{C}\\p{Z}]");
  if (character.size() == 1) return character[0] >= 0x20 && character[0] < 0x7F;
  return !Matches(hidden, character);
}

}  // namespace dovetail::model::jinja
