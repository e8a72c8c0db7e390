#include "model/chat_template/value_text.h"

#include <charconv>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/chat_template/text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

constexpr int kDeepestRepr = 100;

// Python's choice of quotes and escapes.
std::string ReprString(absl::string_view text) {
  const bool double_quotes =
      text.find('\'') != absl::string_view::npos && text.find('"') == absl::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    const char32_t c = step.code_point;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(text.substr(at, step.length))) {
      out.append(text.data() + at, step.length);
    } else if (c < 0x100) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", static_cast<uint32_t>(c));
    }
    at += step.length;
  }
  out.push_back(quote);
  return out;
}

// Appends repr() of nested values; stops where they are too deep or too long.
class ReprWriter {
 public:
  ReprWriter(Runtime* runtime, std::string* out) : runtime_(runtime), out_(out) {}

  absl::Status Write(const Value& value, int depth) {
    if (depth > kDeepestRepr) return absl::InvalidArgumentError("a value is nested too deeply");
    DT_RETURN_IF_ERROR(runtime_->Spend(1));
    DT_RETURN_IF_ERROR(runtime_->CheckRoom(static_cast<int64_t>(out_->size())));
    switch (value.kind()) {
      case Kind::kUndefined:
        *out_ += "Undefined";
        break;
      case Kind::kNone:
        *out_ += "None";
        break;
      case Kind::kBool:
        *out_ += value.boolean() ? "True" : "False";
        break;
      case Kind::kInt:
        absl::StrAppend(out_, value.integer());
        break;
      case Kind::kFloat:
        *out_ += FloatText(value.number());
        break;
      case Kind::kString:
        *out_ += ReprString(value.text());
        break;
      case Kind::kList:
        return WriteList(*value.list(), depth);
      case Kind::kDict:
        return WriteDict(*value.dict(), depth);
      case Kind::kNamespace:
        *out_ += "<Namespace ";
        DT_RETURN_IF_ERROR(WriteDict(value.ns()->values, depth));
        *out_ += ">";
        break;
      case Kind::kCallable:
        absl::StrAppend(out_, "<function ", value.callable()->name, ">");
        break;
      case Kind::kLoop:
        absl::StrAppend(out_, "<LoopContext ", value.loop()->index0 + 1, "/",
                        value.loop()->items->size(), ">");
        break;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status WriteList(const ListObject& list, int depth) {
    if (list.list_kind == ListKind::kRange) return WriteRange(list);
    const bool tuple = list.list_kind == ListKind::kTuple;
    if (list.list_kind == ListKind::kDictView) *out_ += "dict_view(";
    *out_ += tuple ? "(" : "[";
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) *out_ += ", ";
      DT_RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (tuple && list.items.size() == 1) *out_ += ",";
    *out_ += tuple ? ")" : "]";
    if (list.list_kind == ListKind::kDictView) *out_ += ")";
    return absl::OkStatus();
  }

  absl::Status WriteRange(const ListObject& list) {
    const auto& items = list.items;
    const int64_t start = items.empty() ? 0 : items[0].integer();
    const int64_t step = items.size() < 2 ? 1 : items[1].integer() - start;
    const int64_t stop = items.empty() ? 0 : items.back().integer() + (step > 0 ? 1 : -1);
    absl::StrAppend(out_, "range(", start, ", ", stop);
    if (step != 1) absl::StrAppend(out_, ", ", step);
    *out_ += ")";
    return absl::OkStatus();
  }

  absl::Status WriteDict(const DictObject& dict, int depth) {
    *out_ += "{";
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) *out_ += ", ";
      DT_RETURN_IF_ERROR(Write(dict.entries[i].first, depth + 1));
      *out_ += ": ";
      DT_RETURN_IF_ERROR(Write(dict.entries[i].second, depth + 1));
    }
    *out_ += "}";
    return absl::OkStatus();
  }

  Runtime* runtime_;
  std::string* out_;
};

}  // namespace

std::string FloatText(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto written =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific);
  const absl::string_view text(buffer, written.ptr - buffer);
  const size_t e = text.find('e');
  int exponent = 0;
  absl::string_view exponent_text = text.substr(e + 1);
  if (exponent_text[0] == '+') exponent_text.remove_prefix(1);
  (void)absl::SimpleAtoi(exponent_text, &exponent);
  if (exponent < -4 || exponent >= 16) {
    // "1e+16": to_chars already writes two digits and a sign.
    return std::string(text);
  }
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr - buffer);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

absl::StatusOr<std::string> ToRepr(const Value& value, Runtime* runtime) {
  std::string out;
  DT_RETURN_IF_ERROR(ReprWriter(runtime, &out).Write(value, 0));
  return out;
}

absl::StatusOr<std::string> ToText(const Value& value, Runtime* runtime) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return std::string();
  return ToRepr(value, runtime);
}

}  // namespace dovetail::model::jinja
