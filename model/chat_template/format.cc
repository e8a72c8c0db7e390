// "%s" % values and "{}".format(values): the parts of Python's two formatters that templates use.
// What is not supported is an error.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

constexpr int64_t kWidest = 10'000;

struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', or 0 for the type's own
  bool plus = false;
  bool thousands = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

absl::Status BadFormat(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("format: ", what));
}

absl::StatusOr<int64_t> ReadCount(absl::string_view* text) {
  int64_t count = 0;
  while (!text->empty() && absl::ascii_isdigit(text->front())) {
    count = count * 10 + (text->front() - '0');
    if (count > kWidest) return BadFormat("too wide");
    text->remove_prefix(1);
  }
  return count;
}

std::string GroupThousands(absl::string_view digits) {
  const size_t point = std::min(digits.find('.'), digits.size());
  const size_t first = absl::StartsWith(digits, "-") ? 1 : 0;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > first && i < point && (point - i) % 3 == 0) out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

absl::StatusOr<std::string> FormatNumber(const Value& value, const Spec& spec) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.UndefinedReason());
  if (!value.is_number()) {
    return BadFormat(absl::StrCat("a number is required, not ", TypeName(value)));
  }
  const int precision =
      spec.precision < 0 ? 6 : static_cast<int>(std::min<int64_t>(spec.precision, 100));
  std::string text;
  switch (spec.type) {
    case 'f':
    case 'F':
      text = absl::StrFormat("%.*f", precision, value.number());
      break;
    case 'e':
      text = absl::StrFormat("%.*e", precision, value.number());
      break;
    case 'g':
      text = absl::StrFormat("%.*g", precision, value.number());
      break;
    case '%':
      text = absl::StrFormat("%.*f%%", precision, value.number() * 100);
      break;
    case 'x':
      text = absl::StrFormat("%x", value.integer());
      break;
    case 'X':
      text = absl::StrFormat("%X", value.integer());
      break;
    case 'o':
      text = absl::StrFormat("%o", value.integer());
      break;
    default:
      text = absl::StrCat(value.kind() == Kind::kFloat ? static_cast<int64_t>(value.number())
                                                       : value.integer());
  }
  if ((spec.type == 'x' || spec.type == 'X' || spec.type == 'o') &&
      (!value.is_integral() || value.integer() < 0)) {
    return BadFormat("not supported for this number");
  }
  if (spec.thousands) text = GroupThousands(text);
  if (spec.plus && text[0] != '-') text = absl::StrCat("+", text);
  return text;
}

std::string Pad(std::string text, const Spec& spec, char own_align) {
  const int64_t missing = spec.width - CodePointCount(text);
  if (missing <= 0) return text;
  const char align = spec.align != 0 ? spec.align : own_align;
  if (align == '=') {  // zeros go between sign and digits
    const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    return absl::StrCat(text.substr(0, sign), std::string(missing, '0'), text.substr(sign));
  }
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += spec.fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += spec.fill;
  return out;
}

absl::StatusOr<Spec> ParseSpec(absl::string_view text) {
  Spec spec;
  const auto is_align = [](absl::string_view s) {
    return !s.empty() && (s[0] == '<' || s[0] == '>' || s[0] == '^');
  };
  if (!text.empty()) {
    const size_t first = Utf8Length(text[0]);
    if (text.size() > first && is_align(text.substr(first))) {
      spec.fill = std::string(text.substr(0, first));
      text.remove_prefix(first);
    }
  }
  if (is_align(text)) {
    spec.align = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty() && text[0] == '+') {
    spec.plus = true;
    text.remove_prefix(1);
  }
  if (!text.empty() && text[0] == '0') {
    if (spec.align == 0) spec.align = '=';
    text.remove_prefix(1);
  }
  DT_ASSIGN_OR_RETURN(spec.width, ReadCount(&text));
  if (!text.empty() && text[0] == ',') {
    spec.thousands = true;
    text.remove_prefix(1);
  }
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    DT_ASSIGN_OR_RETURN(spec.precision, ReadCount(&text));
  }
  if (!text.empty()) {
    spec.type = text[0];
    text.remove_prefix(1);
  }
  if (!text.empty() ||
      !absl::StrContains(absl::string_view("sdfFeg%xXo\0", 11), absl::string_view(&spec.type, 1))) {
    return BadFormat("this format specification is not supported");
  }
  return spec;
}

absl::StatusOr<std::string> FormatOne(const Value& value, const Spec& spec, Runtime* runtime) {
  const bool plain_float = spec.type == 0 && value.kind() == Kind::kFloat && spec.precision < 0;
  const bool as_text = spec.type == 's' || (spec.type == 0 && !value.is_integral()) || plain_float;
  if (as_text && !(spec.type == 0 && value.kind() == Kind::kFloat && spec.precision >= 0)) {
    DT_ASSIGN_OR_RETURN(std::string text, ToText(value, runtime));
    if (spec.precision >= 0) text.resize(ByteOffset(text, spec.precision));
    return Pad(std::move(text), spec, value.is_number() ? '>' : '<');
  }
  if (spec.type == 0 && value.kind() == Kind::kBool && spec.width == 0) {
    return ToText(value, runtime);
  }
  DT_ASSIGN_OR_RETURN(std::string text, FormatNumber(value, spec));
  return Pad(std::move(text), spec, '>');
}

// One %-conversion; `format` is behind the '%'.
absl::StatusOr<std::string> FormatConversion(absl::string_view* format, const Value& value,
                                             Runtime* runtime) {
  Spec spec;
  spec.align = '>';
  for (; !format->empty(); format->remove_prefix(1)) {
    if (format->front() == '-') {
      spec.align = '<';
    } else if (format->front() == '0') {
      spec.align = '=';
    } else if (format->front() == '+') {
      spec.plus = true;
    } else {
      break;
    }
  }
  DT_ASSIGN_OR_RETURN(spec.width, ReadCount(format));
  if (absl::StartsWith(*format, ".")) {
    format->remove_prefix(1);
    DT_ASSIGN_OR_RETURN(spec.precision, ReadCount(format));
  }
  if (format->empty()) return BadFormat("incomplete format");
  const char type = format->front();
  format->remove_prefix(1);
  if (type == 's' || type == 'r') {
    DT_ASSIGN_OR_RETURN(std::string text,
                        type == 's' ? ToText(value, runtime) : ToRepr(value, runtime));
    if (spec.precision >= 0) text.resize(ByteOffset(text, spec.precision));
    if (spec.align == '=') spec.align = '>';
    return Pad(std::move(text), spec, '>');
  }
  if (!absl::StrContains("dixXofFeg", absl::string_view(&type, 1))) {
    return BadFormat(
        absl::StrCat("conversion '", absl::string_view(&type, 1), "' is not supported"));
  }
  spec.type = type == 'i' ? 'd' : type;
  DT_ASSIGN_OR_RETURN(std::string text, FormatNumber(value, spec));
  return Pad(std::move(text), spec, '>');
}

absl::Status AppendChecked(absl::string_view text, Runtime* runtime, std::string* out) {
  DT_RETURN_IF_ERROR(runtime->Spend(1 + static_cast<int64_t>(text.size()) / 64));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(static_cast<int64_t>(out->size() + text.size())));
  out->append(text.data(), text.size());
  return absl::OkStatus();
}

// The value that {name}, {0} or {} means.
absl::StatusOr<Value> FieldValue(absl::string_view field, const CallArguments& values,
                                 size_t* next_positional) {
  if (field.empty() || absl::ascii_isdigit(field[0])) {
    uint64_t index = *next_positional;
    if (field.empty()) {
      ++*next_positional;
    } else if (!absl::SimpleAtoi(field, &index)) {
      return BadFormat("only plain fields are supported");
    }
    if (index >= values.positional.size()) return BadFormat("not enough values");
    return values.positional[index];
  }
  if (absl::StrContains(field, ".") || absl::StrContains(field, "[")) {
    return BadFormat("only plain fields are supported");
  }
  const Value* found = values.FindNamed(field);
  if (found == nullptr) return BadFormat(absl::StrCat("no value named '", field, "'"));
  return *found;
}

}  // namespace

absl::StatusOr<Value> FormatPercent(const Value& format, const Value& values, Runtime* runtime) {
  const bool is_tuple =
      values.kind() == Kind::kList && values.list()->list_kind == ListKind::kTuple;
  const std::vector<Value> single = {values};
  const std::vector<Value>& items = is_tuple ? values.list()->items : single;
  size_t used = 0;
  std::string out;
  absl::string_view rest = format.text();
  while (!rest.empty()) {
    const size_t percent = std::min(rest.find('%'), rest.size());
    DT_RETURN_IF_ERROR(AppendChecked(rest.substr(0, percent), runtime, &out));
    rest.remove_prefix(percent);
    if (rest.empty()) break;
    rest.remove_prefix(1);
    if (absl::StartsWith(rest, "%")) {
      out += "%";
      rest.remove_prefix(1);
      continue;
    }
    if (absl::StartsWith(rest, "(")) {
      const size_t end = rest.find(')');
      if (end == absl::string_view::npos || values.kind() != Kind::kDict) {
        return BadFormat("format requires a mapping");
      }
      const Value* found = values.dict()->Find(rest.substr(1, end - 1));
      if (found == nullptr) return BadFormat("a key is missing");
      rest.remove_prefix(end + 1);
      used = items.size();
      DT_ASSIGN_OR_RETURN(const std::string text, FormatConversion(&rest, *found, runtime));
      DT_RETURN_IF_ERROR(AppendChecked(text, runtime, &out));
      continue;
    }
    if (used >= items.size()) return BadFormat("not enough values");
    DT_ASSIGN_OR_RETURN(const std::string text, FormatConversion(&rest, items[used++], runtime));
    DT_RETURN_IF_ERROR(AppendChecked(text, runtime, &out));
  }
  if (used < items.size() && values.kind() != Kind::kDict) {
    return BadFormat("not all values were used");
  }
  return runtime->String(std::move(out));
}

absl::StatusOr<Value> FormatBraces(const Value& format, const CallArguments& values,
                                   Runtime* runtime) {
  std::string out;
  size_t next_positional = 0;
  absl::string_view rest = format.text();
  while (!rest.empty()) {
    const size_t brace = std::min(rest.find_first_of("{}"), rest.size());
    DT_RETURN_IF_ERROR(AppendChecked(rest.substr(0, brace), runtime, &out));
    rest.remove_prefix(brace);
    if (rest.empty()) break;
    if (absl::StartsWith(rest, "{{") || absl::StartsWith(rest, "}}")) {
      out.push_back(rest[0]);
      rest.remove_prefix(2);
      continue;
    }
    const size_t end = rest.find('}');
    if (rest[0] == '}' || end == absl::string_view::npos) return BadFormat("single brace");
    absl::string_view field = rest.substr(1, end - 1);
    rest.remove_prefix(end + 1);
    const size_t colon = std::min(field.find(':'), field.size());
    const absl::string_view spec_text = colon < field.size() ? field.substr(colon + 1) : "";
    field = field.substr(0, colon);
    const bool as_repr = absl::EndsWith(field, "!r");
    if (as_repr || absl::EndsWith(field, "!s")) field.remove_suffix(2);
    DT_ASSIGN_OR_RETURN(Value value, FieldValue(field, values, &next_positional));
    if (as_repr) {
      DT_ASSIGN_OR_RETURN(std::string repr, ToRepr(value, runtime));
      value = runtime->String(std::move(repr));
    }
    DT_ASSIGN_OR_RETURN(const Spec spec, ParseSpec(spec_text));
    DT_ASSIGN_OR_RETURN(const std::string text, FormatOne(value, spec, runtime));
    DT_RETURN_IF_ERROR(AppendChecked(text, runtime, &out));
  }
  return runtime->String(std::move(out));
}

}  // namespace dovetail::model::jinja
