// Filters that make text, and those on single values.
#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// The input as text, charged for its size.
absl::StatusOr<std::string> InputText(const Value& input, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(std::string text, ToText(input, runtime));
  DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(text.size()) / 16));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(3 * static_cast<int64_t>(text.size())));
  return text;
}

template <std::string (*kMap)(absl::string_view)>
Result MapTextFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "filter", {}, 0).status());
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  return runtime->MakeString(kMap(text), input.is_markup());
}

// The title filter begins words after spaces, "-" and opening brackets, unlike str.title().
std::string TitleWords(absl::string_view text) {
  constexpr absl::string_view kBreaks = "-({[<";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size()) {
      const Utf8Step step = DecodeUtf8(text.substr(end));
      if (IsSpace(step.code_point) || absl::StrContains(kBreaks, text.substr(end, 1))) break;
      end += step.length;
    }
    if (end > at) out += CapitalizeText(text.substr(at, end - at));
    if (end < text.size()) {
      const int length = Utf8Length(text[end]);
      out.append(text.data() + end, length);
      end += length;
    }
    at = end;
  }
  return out;
}

Result TrimFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "trim", {"chars"}, 0));
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  if (bound[0] == nullptr || bound[0]->is_none()) {
    return runtime->MakeString(std::string(StripText(text, true, true)), input.is_markup());
  }
  DT_ASSIGN_OR_RETURN(const std::string chars, StringOr(bound[0], "", "chars"));
  DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(text.size()) *
                                    (1 + static_cast<int64_t>(chars.size()) / 16)));
  return runtime->MakeString(std::string(StripChars(text, chars, true, true)), input.is_markup());
}

Result ReplaceFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "replace", {"old", "new", "count"}, 2));
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  DT_ASSIGN_OR_RETURN(const std::string from, ToText(*bound[0], runtime));
  DT_ASSIGN_OR_RETURN(const std::string to, ToText(*bound[1], runtime));
  const Value* count_value = bound[2] != nullptr && bound[2]->is_none() ? nullptr : bound[2];
  DT_ASSIGN_OR_RETURN(const int64_t count, IntegerOr(count_value, -1, "count"));
  CallArguments method_arguments;
  method_arguments.positional = {runtime->String(from), runtime->String(to), Value::Int(count)};
  return FindStringMethod("replace")(runtime->String(text), method_arguments, runtime);
}

Result IndentFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "indent", {"width", "first", "blank"}, 0));
  DT_ASSIGN_OR_RETURN(std::string text, InputText(input, runtime));
  std::string indent;
  if (bound[0] != nullptr && bound[0]->is_string()) {
    indent = bound[0]->text();
  } else {
    DT_ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[0], 4, "width"));
    DT_RETURN_IF_ERROR(runtime->CheckRoom(width));
    indent.assign(std::max<int64_t>(width, 0), ' ');
  }
  const bool blank = TruthOr(bound[2], false);
  text.push_back('\n');  // so that an empty last line counts
  const std::vector<absl::string_view> lines = SplitLines(text, false);
  const auto count = static_cast<int64_t>(lines.size());
  DT_RETURN_IF_ERROR(runtime->Spend(count));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(indent.size()), &bytes)) bytes = INT64_MAX;
  DT_RETURN_IF_ERROR(runtime->CheckRoom(bytes));
  std::string out;
  if (TruthOr(bound[1], false)) out = indent;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.push_back('\n');
    if (i > 0 && (blank || !lines[i].empty())) out += indent;
    out.append(lines[i].data(), lines[i].size());
  }
  return runtime->MakeString(std::move(out), input.is_markup());
}

Result StringFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "string", {}, 0).status());
  if (input.is_string()) return input;
  DT_ASSIGN_OR_RETURN(std::string text, ToText(input, runtime));
  return runtime->String(std::move(text));
}

Result SafeFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(std::string text, InputText(input, runtime));
  return runtime->Markup(std::move(text));
}

Result EscapeFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  if (input.is_markup()) return input;
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(6 * static_cast<int64_t>(text.size())));
  return runtime->Markup(EscapeHtml(text));
}

Result DefaultFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "default", {"default_value", "boolean"}, 0));
  const bool missing = input.is_undefined() || (TruthOr(bound[1], false) && !IsTrue(input));
  if (!missing) return input;
  return bound[0] == nullptr ? runtime->String("") : *bound[0];
}

Result ToJsonFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonStyle style;
  style.ensure_ascii = TruthOr(bound[0], false);
  style.sort_keys = TruthOr(bound[3], false);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    if (bound[1]->is_string()) {
      style.indent = bound[1]->text();
    } else {
      DT_ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[1], 0, "indent"));
      if (width > 1000) return absl::InvalidArgumentError("tojson: indent is too large");
      style.indent = std::string(std::max<int64_t>(width, 0), ' ');
    }
    style.item_separator.resize(1);  // ", " would leave spaces at the ends of lines
  }
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    DT_ASSIGN_OR_RETURN(const std::vector<Value>* pair, Iterate(*bound[2], runtime));
    if (pair->size() != 2) return absl::InvalidArgumentError("tojson: separators must be two");
    DT_ASSIGN_OR_RETURN(style.item_separator, StringOr(&(*pair)[0], "", "separators"));
    DT_ASSIGN_OR_RETURN(style.key_separator, StringOr(&(*pair)[1], "", "separators"));
  }
  DT_ASSIGN_OR_RETURN(std::string text, ToJson(input, style, runtime));
  return runtime->String(std::move(text));
}

// int("  12 "), with underscores and a sign.
std::optional<int64_t> ParseInt(absl::string_view text, int base) {
  text = StripText(text, true, true);
  const bool negative = absl::ConsumePrefix(&text, "-");
  if (!negative) absl::ConsumePrefix(&text, "+");
  if (base == 16 && (absl::StartsWith(text, "0x") || absl::StartsWith(text, "0X"))) {
    text.remove_prefix(2);
  }
  int64_t value = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = absl::ascii_tolower(text[i]);
    if (c == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_') continue;
    const int digit = absl::ascii_isdigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, int64_t{base}, &value) ||
        __builtin_add_overflow(value, int64_t{digit}, &value)) {
      return std::nullopt;
    }
  }
  if (text.empty()) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> ParseFloat(absl::string_view text) {
  double value = 0;
  text = StripText(text, true, true);
  if (text.empty() || absl::StrContains(text, "x") || !absl::SimpleAtod(text, &value)) {
    return std::nullopt;
  }
  return value;
}

Result IntFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "int", {"default", "base"}, 0));
  const Value fallback = bound[0] == nullptr ? Value::Int(0) : *bound[0];
  DT_ASSIGN_OR_RETURN(const int64_t base, IntegerOr(bound[1], 10, "base"));
  if (base != 2 && base != 8 && base != 10 && base != 16) {
    return absl::InvalidArgumentError("int: base must be 2, 8, 10 or 16");
  }
  if (input.is_undefined()) return absl::InvalidArgumentError(input.UndefinedReason());
  if (input.is_integral()) return Value::Int(input.integer());
  std::optional<double> number;
  if (input.is_string()) {
    if (const auto integer = ParseInt(input.text(), static_cast<int>(base))) {
      return Value::Int(*integer);
    }
    number = ParseFloat(input.text());
  } else if (input.is_number()) {
    number = input.number();
  }
  if (!number.has_value() || !(std::fabs(*number) < 9.2e18)) return fallback;
  return Value::Int(static_cast<int64_t>(*number));
}

Result FloatFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "float", {"default"}, 0));
  if (input.is_undefined()) return absl::InvalidArgumentError(input.UndefinedReason());
  if (input.is_number()) return Value::Float(input.number());
  const auto number = input.is_string() ? ParseFloat(input.text()) : std::optional<double>();
  if (number.has_value()) return Value::Float(*number);
  return bound[0] == nullptr ? Value::Float(0) : *bound[0];
}

Result AbsFilter(const Value& input, const CallArguments&, Runtime*) {
  const bool negative = input.is_number() && input.number() < 0;
  if (!input.is_number() || negative) return Negate(input);
  return input;
}

Result RoundFilter(const Value& input, const CallArguments& arguments, Runtime*) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "round", {"precision", "method"}, 0));
  DT_ASSIGN_OR_RETURN(const int64_t precision, IntegerOr(bound[0], 0, "precision"));
  DT_ASSIGN_OR_RETURN(const std::string method, StringOr(bound[1], "common", "method"));
  if (!input.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat("round: ", TypeName(input), " is no number"));
  }
  if (precision < -300 || precision > 300) return Value::Float(input.number());
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  if (method == "ceil") return Value::Float(std::ceil(scaled) / scale);
  if (method == "floor") return Value::Float(std::floor(scaled) / scale);
  if (method != "common") return absl::InvalidArgumentError("round: unknown method");
  return Value::Float(std::nearbyint(scaled) / scale);  // ties to even, as Python
}

Result FormatFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  if (!arguments.named.empty()) {
    return absl::InvalidArgumentError("format: named values are not supported");
  }
  return FormatPercent(runtime->String(text), runtime->List(arguments.positional, ListKind::kTuple),
                       runtime);
}

Result CenterFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "center", {"width"}, 0));
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  CallArguments width;
  width.positional.push_back(bound[0] == nullptr ? Value::Int(80) : *bound[0]);
  return FindStringMethod("center")(runtime->String(text), width, runtime);
}

Result WordCountFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::string text, InputText(input, runtime));
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8Length(text[at]);
    const absl::string_view character = absl::string_view(text).substr(at, length);
    const bool is_word = character == "_" || IsAll(character, TextClass::kAlnum);
    words += is_word && !in_word;
    in_word = is_word;
    at += length;
  }
  return Value::Int(words);
}

Result AttributeFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "attr", {"name"}, 1));
  if (!bound[0]->is_string()) return absl::InvalidArgumentError("attr: the name must be a string");
  if (input.kind() == Kind::kDict) {  // attributes only, not items
    if (FindMethod(input, bound[0]->text()) == nullptr) {
      return Value::Undefined(*bound[0], input.kind());
    }
  }
  return GetAttribute(input, *bound[0], runtime);
}

constexpr NamedFilter kFilters[] = {
    {"abs", AbsFilter},
    {"attr", AttributeFilter},
    {"capitalize", MapTextFilter<CapitalizeText>},
    {"center", CenterFilter},
    {"d", DefaultFilter},
    {"default", DefaultFilter},
    {"e", EscapeFilter},
    {"escape", EscapeFilter},
    {"float", FloatFilter},
    {"format", FormatFilter},
    {"indent", IndentFilter},
    {"int", IntFilter},
    {"lower", MapTextFilter<LowerText>},
    {"replace", ReplaceFilter},
    {"round", RoundFilter},
    {"safe", SafeFilter},
    {"string", StringFilter},
    {"title", MapTextFilter<TitleWords>},
    {"tojson", ToJsonFilter},
    {"trim", TrimFilter},
    {"upper", MapTextFilter<UpperText>},
    {"wordcount", WordCountFilter},
};

}  // namespace

FilterFunction FindTextFilter(absl::string_view name) {
  for (const NamedFilter& filter : kFilters) {
    if (filter.name == name) return filter.function;
  }
  return nullptr;
}

FilterFunction FindFilter(absl::string_view name) {
  if (const FilterFunction filter = FindTextFilter(name)) return filter;
  if (const FilterFunction filter = FindSequenceFilter(name)) return filter;
  return FindSelectFilter(name);
}

}  // namespace dovetail::model::jinja
