#include "coordinator/placement/bounded_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kLongestPattern = 16 << 10;
constexpr uint32_t kMostSteps = 50'000;  // of one search; rules on module names take tens
constexpr uint32_t kMostHeapKib = 8 << 10;
constexpr uint32_t kDeepestGroups = 100;

// A pattern in PCRE2's syntax, and where each of its characters comes from.
struct Translation {
  std::string pattern;
  std::vector<size_t> origin;

  void Append(absl::string_view text, size_t from) {
    absl::StrAppend(&pattern, text);
    origin.insert(origin.end(), text.size(), from);
  }
};

absl::Status Refuse(absl::string_view what, size_t offset) {
  return absl::InvalidArgumentError(absl::StrCat(what, " at offset ", offset));
}

// Python's escapes are letters of this list; other letters are "bad escape" there, and mean
// something else in PCRE2.
constexpr absl::string_view kPythonEscapes = "AbBdDsSwWZafnrtvxuU";
constexpr absl::string_view kPythonClassEscapes = "bdDsSwWafnrtvxuU";

absl::Status TranslateEscape(absl::string_view text, size_t at, bool in_class, Translation* out) {
  if (at + 1 >= text.size()) return Refuse("\\ at end of pattern", at);
  const char c = text[at + 1];
  if (absl::ascii_isalpha(static_cast<unsigned char>(c))) {
    const absl::string_view known = in_class ? kPythonClassEscapes : kPythonEscapes;
    if (known.find(c) == absl::string_view::npos) {
      return Refuse(absl::StrCat("bad escape \\", std::string(1, c)), at);
    }
    if (c == 'Z') {
      out->Append("\\z", at);
      return absl::OkStatus();
    }
    if (c == 'u' || c == 'U') {
      const size_t digits = c == 'u' ? 4 : 8;
      const absl::string_view hex = text.substr(at + 2, digits);
      if (hex.size() < digits) return Refuse("incomplete escape", at);
      for (char h : hex) {
        if (!absl::ascii_isxdigit(static_cast<unsigned char>(h))) {
          return Refuse("incomplete escape", at);
        }
      }
      out->Append("\\x{", at);  // the digits follow as ordinary text
      out->Append(hex, at);
      out->Append("}", at);
      return absl::OkStatus();
    }
    if (c == 'v') {
      out->Append("\\x0b", at);  // a character in Python, a class in PCRE2
      return absl::OkStatus();
    }
  }
  out->Append(text.substr(at, 2), at);
  return absl::OkStatus();
}

// How many characters of the pattern TranslateEscape took.
size_t EscapeLength(absl::string_view text, size_t at) {
  const char c = at + 1 < text.size() ? text[at + 1] : '\0';
  return c == 'u' ? 6 : c == 'U' ? 10 : 2;
}

// A character class from its [ to its ]. In Python a [ within is a character like any other.
absl::StatusOr<size_t> TranslateClass(absl::string_view text, size_t at, Translation* out) {
  const size_t begin = at;
  out->Append("[", at++);
  if (at < text.size() && text[at] == '^') out->Append("^", at++);
  bool first = true;
  for (; at < text.size(); first = false) {
    if (text[at] == ']' && !first) {
      out->Append("]", at);
      return at + 1;
    }
    if (text[at] == '\\') {
      if (absl::Status s = TranslateEscape(text, at, true, out); !s.ok()) return s;
      at += EscapeLength(text, at);
    } else {
      if (text[at] == '[') out->Append("\\", at);
      out->Append(text.substr(at, 1), at);
      ++at;
    }
  }
  return Refuse("unterminated character set", begin);
}

// Groups that PCRE2 knows and Python does not.
absl::Status CheckGroup(absl::string_view text, size_t at) {
  if (text.substr(at, 2) == "(*") return Refuse("nothing to repeat", at + 1);
  if (text.substr(at, 2) != "(?") return absl::OkStatus();
  const absl::string_view rest = text.substr(at + 2);
  if (rest.empty()) return Refuse("unexpected end of pattern", at);
  // (?: (?= (?! (?# (?> (?( (?P (?< and inline flags.
  constexpr absl::string_view kFirst = ":=!#>(P<aiLmsux-";
  if (kFirst.find(rest[0]) == absl::string_view::npos ||
      (rest[0] == '<' && (rest.size() < 2 || (rest[1] != '=' && rest[1] != '!'))) ||
      (rest[0] == 'P' && (rest.size() < 2 || (rest[1] != '<' && rest[1] != '=')))) {
    return Refuse(absl::StrCat("unknown extension ?", rest.substr(0, 1)), at + 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<Translation> TranslatePython(absl::string_view text) {
  Translation out;
  size_t at = 0;
  while (at < text.size()) {
    switch (text[at]) {
      case '\\':
        if (absl::Status s = TranslateEscape(text, at, false, &out); !s.ok()) return s;
        at += EscapeLength(text, at);
        continue;
      case '[': {
        absl::StatusOr<size_t> next = TranslateClass(text, at, &out);
        if (!next.ok()) return next.status();
        at = *next;
        continue;
      }
      case '(':
        if (absl::Status s = CheckGroup(text, at); !s.ok()) return s;
        break;
      case '{':
        out.Append("{", at);
        if (at + 2 < text.size() && text[at + 1] == ',' &&
            absl::ascii_isdigit(static_cast<unsigned char>(text[at + 2]))) {
          out.Append("0", at);  // {,3} is {0,3} in Python, four characters in PCRE2
        }
        ++at;
        continue;
      default:
        break;
    }
    out.Append(text.substr(at, 1), at);
    ++at;
  }
  return out;
}

Translation Untranslated(absl::string_view text) {
  Translation out;
  for (size_t i = 0; i < text.size(); ++i) out.Append(text.substr(i, 1), i);
  return out;
}

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freer<pcre2_compile_context_free>>;

}  // namespace

struct BoundedRegex::Compiled {
  std::unique_ptr<pcre2_code, Freer<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>> data;
  std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>> context;
};

absl::StatusOr<BoundedRegex> BoundedRegex::Compile(absl::string_view pattern, RegexSyntax syntax) {
  if (pattern.size() > kLongestPattern) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the pattern has ", pattern.size(), " bytes; at most ", kLongestPattern, " are read"));
  }
  Translation translation;
  uint32_t options = PCRE2_NEVER_BACKSLASH_C;
  if (syntax == RegexSyntax::kPython) {
    absl::StatusOr<Translation> translated = TranslatePython(pattern);
    if (!translated.ok()) return translated.status();
    translation = *std::move(translated);
  } else {
    translation = Untranslated(pattern);
    options |=
        PCRE2_ALT_BSUX | PCRE2_MATCH_UNSET_BACKREF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALLOW_EMPTY_CLASS;
  }
  CompileContext compile(pcre2_compile_context_create(nullptr));
  pcre2_set_parens_nest_limit(compile.get(), kDeepestGroups);
  int error = 0;
  PCRE2_SIZE error_at = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translation.pattern.data()),
                                     translation.pattern.size(), options, &error, &error_at,
                                     compile.get()));
  if (compiled->code == nullptr) {
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof(message));
    const size_t origin =
        error_at < translation.origin.size() ? translation.origin[error_at] : pattern.size();
    return Refuse(reinterpret_cast<const char*>(message), origin);
  }
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without it: slower, not wrong
  compiled->data.reset(pcre2_match_data_create_from_pattern(compiled->code.get(), nullptr));
  compiled->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(compiled->context.get(), kMostSteps);
  pcre2_set_heap_limit(compiled->context.get(), kMostHeapKib);
  return BoundedRegex(std::move(compiled));
}

BoundedRegex::BoundedRegex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
BoundedRegex::BoundedRegex(BoundedRegex&&) noexcept = default;
BoundedRegex& BoundedRegex::operator=(BoundedRegex&&) noexcept = default;
BoundedRegex::~BoundedRegex() = default;

BoundedRegex::Result BoundedRegex::Search(absl::string_view text) const {
  const int rc = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                             text.size(), 0, 0, compiled_->data.get(), compiled_->context.get());
  if (rc >= 0) return Result::kMatch;
  return rc == PCRE2_ERROR_NOMATCH ? Result::kNoMatch : Result::kTooExpensive;
}

}  // namespace dovetail::coordinator
