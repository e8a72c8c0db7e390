// Methods of str.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

absl::Status Charge(const Value& self, Runtime* runtime) {
  const auto bytes = static_cast<int64_t>(self.text().size());
  DT_RETURN_IF_ERROR(runtime->CheckRoom(3 * bytes));
  return runtime->Spend(bytes / 16);
}

template <std::string (*kMap)(absl::string_view)>
Result Map(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "str method", {}, 0).status());
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  return runtime->MakeString(kMap(self.text()), self.is_markup());
}

template <TextClass kClass>
Result IsMethod(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "str method", {}, 0).status());
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  return Value::Bool(IsAll(self.text(), kClass));
}

template <bool kLeft, bool kRight>
Result Strip(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "strip", {"chars"}, 0));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  absl::string_view text = self.text();
  if (bound[0] == nullptr || bound[0]->is_none()) {
    text = StripText(text, kLeft, kRight);
  } else {
    DT_ASSIGN_OR_RETURN(const std::string chars, StringOr(bound[0], "", "chars"));
    DT_RETURN_IF_ERROR(
        runtime->Spend(static_cast<int64_t>(text.size() / 16 * (1 + chars.size() / 16))));
    text = StripChars(text, chars, kLeft, kRight);
  }
  return runtime->MakeString(std::string(text), self.is_markup());
}

Result ListOfStrings(const std::vector<absl::string_view>& parts, Runtime* runtime) {
  const auto count = static_cast<int64_t>(parts.size());
  DT_RETURN_IF_ERROR(runtime->Spend(count));
  DT_RETURN_IF_ERROR(
      runtime->CheckRoom(count * (kValueBytes + static_cast<int64_t>(sizeof(StringData)))));
  std::vector<Value> items;
  items.reserve(parts.size());
  for (absl::string_view part : parts) items.push_back(runtime->String(part));
  return runtime->List(std::move(items));
}

template <bool kFromRight>
Result Split(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "split", {"sep", "maxsplit"}, 0));
  DT_ASSIGN_OR_RETURN(const int64_t limit, IntegerOr(bound[1], -1, "maxsplit"));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  if (bound[0] == nullptr || bound[0]->is_none()) {
    return ListOfStrings(
        kFromRight ? RSplitSpace(self.text(), limit) : SplitSpace(self.text(), limit), runtime);
  }
  DT_ASSIGN_OR_RETURN(const std::string separator, StringOr(bound[0], "", "sep"));
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  return ListOfStrings(kFromRight ? RSplitText(self.text(), separator, limit)
                                  : SplitText(self.text(), separator, limit),
                       runtime);
}

Result SplitLinesMethod(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "splitlines", {"keepends"}, 0));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  return ListOfStrings(SplitLines(self.text(), TruthOr(bound[0], false)), runtime);
}

template <bool kFromRight>
Result Partition(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "partition", {"sep"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string separator, StringOr(bound[0], "", "sep"));
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  const absl::string_view text = self.text();
  const size_t at = kFromRight ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (at == absl::string_view::npos) {
    parts.assign(3, runtime->String(""));
    parts[kFromRight ? 2 : 0] = self;
  } else {
    parts = {runtime->String(text.substr(0, at)), runtime->String(separator),
             runtime->String(text.substr(at + separator.size()))};
  }
  return runtime->List(std::move(parts), ListKind::kTuple);
}

// startswith and endswith: of one string or a tuple of them.
template <bool kStart>
Result Affix(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, kStart ? "startswith" : "endswith",
                                                      {"prefix", "start", "end"}, 1));
  DT_ASSIGN_OR_RETURN(const int64_t start, IntegerOr(bound[1], 0, "start"));
  if (start < 0 || bound[2] != nullptr) {
    return absl::InvalidArgumentError("a range from the end is not supported here");
  }
  const absl::string_view text =
      absl::string_view(self.text()).substr(ByteOffset(self.text(), start));
  const std::vector<Value> single = {*bound[0]};
  const bool is_tuple =
      bound[0]->kind() == Kind::kList && bound[0]->list()->list_kind == ListKind::kTuple;
  const std::vector<Value>& affixes = is_tuple ? bound[0]->list()->items : single;
  DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(affixes.size())));
  for (const Value& affix : affixes) {
    DT_ASSIGN_OR_RETURN(const std::string part, StringOr(&affix, "", "prefix"));
    if (kStart ? absl::StartsWith(text, part) : absl::EndsWith(text, part)) {
      return Value::Bool(true);
    }
  }
  return Value::Bool(false);
}

Result Replace(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "replace", {"old", "new", "count"}, 2));
  DT_ASSIGN_OR_RETURN(const std::string from, StringOr(bound[0], "", "old"));
  DT_ASSIGN_OR_RETURN(const std::string to, StringOr(bound[1], "", "new"));
  DT_ASSIGN_OR_RETURN(const int64_t limit, IntegerOr(bound[2], -1, "count"));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  int64_t growth = 0;
  const int64_t count = CountText(self.text(), from);
  if (__builtin_mul_overflow(count, static_cast<int64_t>(to.size()), &growth)) growth = INT64_MAX;
  DT_RETURN_IF_ERROR(runtime->CheckRoom(growth));
  DT_RETURN_IF_ERROR(runtime->Spend(growth / 64));
  return runtime->MakeString(ReplaceText(self.text(), from, to, limit), self.is_markup());
}

Result Count(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "count", {"sub"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string part, StringOr(bound[0], "", "sub"));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  return Value::Int(CountText(self.text(), part));
}

// find, rfind, index and rindex; the latter two fail where the former give -1.
template <bool kFromRight, bool kMustExist>
Result Find(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "find", {"sub", "start"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string part, StringOr(bound[0], "", "sub"));
  DT_ASSIGN_OR_RETURN(int64_t start, IntegerOr(bound[1], 0, "start"));
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  const absl::string_view text = self.text();
  if (start < 0) start = std::max<int64_t>(0, start + CodePointCount(text));
  const size_t from = ByteOffset(text, start);
  size_t at = kFromRight ? text.rfind(part) : text.find(part, from);
  if (at != absl::string_view::npos && at < from) at = absl::string_view::npos;
  if (at != absl::string_view::npos) return Value::Int(CodePointCount(text.substr(0, at)));
  if (kMustExist) return absl::InvalidArgumentError("substring not found");
  return Value::Int(-1);
}

Result Join(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "join", {"iterable"}, 1));
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(*bound[0], runtime));
  std::string out;
  for (size_t i = 0; i < items->size(); ++i) {
    const Value& item = (*items)[i];
    if (!item.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence item ", i, ": expected str instance, ", TypeName(item), " found"));
    }
    if (i > 0) out += self.text();
    out += item.text();
    DT_RETURN_IF_ERROR(
        runtime->Spend(1 + static_cast<int64_t>(self.text().size() + item.text().size()) / 64));
    DT_RETURN_IF_ERROR(runtime->CheckRoom(2 * static_cast<int64_t>(out.size())));
  }
  return runtime->String(std::move(out));
}

template <bool kPrefix>
Result RemoveAffix(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "removeprefix", {"prefix"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string affix, StringOr(bound[0], "", "prefix"));
  absl::string_view text = self.text();
  if (kPrefix ? absl::StartsWith(text, affix) : absl::EndsWith(text, affix)) {
    text = kPrefix ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size());
  }
  return runtime->String(text);
}

enum class Side { kLeft, kRight, kBoth };

// ljust, rjust and center: `kSide` is where the text stands.
template <Side kSide>
Result Justify(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "just", {"width", "fillchar"}, 1));
  DT_ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[0], 0, "width"));
  DT_ASSIGN_OR_RETURN(const std::string fill, StringOr(bound[1], " ", "fillchar"));
  if (CodePointCount(fill) != 1) {
    return absl::InvalidArgumentError("the fill character must be exactly one character long");
  }
  DT_RETURN_IF_ERROR(Charge(self, runtime));
  const int64_t length = CodePointCount(self.text());
  const int64_t pad = std::max<int64_t>(0, width - length);
  DT_RETURN_IF_ERROR(runtime->CheckRoom(std::min<int64_t>(pad, INT64_MAX / 4) * 4));
  DT_RETURN_IF_ERROR(runtime->Spend(pad / 64));
  int64_t left = kSide == Side::kLeft ? 0 : pad;
  if (kSide == Side::kBoth) left = pad / 2 + (pad & width & 1);  // as CPython rounds
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < pad; ++i) out += fill;
  return runtime->String(std::move(out));
}

Result ZeroFill(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "zfill", {"width"}, 1));
  DT_ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound[0], 0, "width"));
  const std::string& text = self.text();
  const int64_t pad = std::max<int64_t>(0, width - CodePointCount(text));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(pad));
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return runtime->String(
      absl::StrCat(text.substr(0, sign), std::string(pad, '0'), text.substr(sign)));
}

Result Format(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  return FormatBraces(self, arguments, runtime);
}

constexpr NamedFilter kMethods[] = {
    {"capitalize", Map<CapitalizeText>},
    {"casefold", Map<LowerText>},
    {"center", Justify<Side::kBoth>},
    {"count", Count},
    {"endswith", Affix<false>},
    {"find", Find<false, false>},
    {"format", Format},
    {"index", Find<false, true>},
    {"isalnum", IsMethod<TextClass::kAlnum>},
    {"isalpha", IsMethod<TextClass::kAlpha>},
    {"isdecimal", IsMethod<TextClass::kDigit>},
    {"isdigit", IsMethod<TextClass::kDigit>},
    {"islower", IsMethod<TextClass::kLower>},
    {"isnumeric", IsMethod<TextClass::kDigit>},
    {"isspace", IsMethod<TextClass::kSpace>},
    {"isupper", IsMethod<TextClass::kUpper>},
    {"join", Join},
    {"ljust", Justify<Side::kLeft>},
    {"lower", Map<LowerText>},
    {"lstrip", Strip<true, false>},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"replace", Replace},
    {"rfind", Find<true, false>},
    {"rindex", Find<true, true>},
    {"rjust", Justify<Side::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", Split<true>},
    {"rstrip", Strip<false, true>},
    {"split", Split<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", Affix<true>},
    {"strip", Strip<true, true>},
    {"title", Map<TitleText>},
    {"upper", Map<UpperText>},
    {"zfill", ZeroFill},
};

}  // namespace

MethodFunction FindStringMethod(absl::string_view name) {
  for (const NamedFilter& method : kMethods) {
    if (method.name == name) return method.function;
  }
  return nullptr;
}

}  // namespace dovetail::model::jinja
