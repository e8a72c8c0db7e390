// json.dumps() for tojson.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

constexpr int kDeepestJson = 100;

void AppendEscape(char32_t c, std::string* out) {
  if (c >= 0x10000) {
    const char32_t offset = c - 0x10000;
    AppendEscape(0xD800 + (offset >> 10), out);
    c = 0xDC00 + (offset & 0x3FF);
  }
  absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c));
}

void AppendJsonString(absl::string_view text, bool ensure_ascii, std::string* out) {
  out->push_back('"');
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(at));
    const char32_t c = step.code_point;
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (c < 0x20 || (ensure_ascii && c >= 0x7F)) {
          AppendEscape(c, out);
        } else {
          out->append(text.data() + at, step.length);
        }
    }
    at += step.length;
  }
  out->push_back('"');
}

std::string JsonFloat(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return FloatText(number);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Runtime* runtime, std::string* out)
      : style_(style), runtime_(runtime), out_(out) {}

  absl::Status Write(const Value& value, int depth) {
    if (depth > kDeepestJson) return absl::InvalidArgumentError("a value is nested too deeply");
    DT_RETURN_IF_ERROR(runtime_->Spend(1));
    DT_RETURN_IF_ERROR(runtime_->CheckRoom(static_cast<int64_t>(out_->size())));
    switch (value.kind()) {
      case Kind::kNone:
        *out_ += "null";
        break;
      case Kind::kBool:
        *out_ += value.boolean() ? "true" : "false";
        break;
      case Kind::kInt:
        absl::StrAppend(out_, value.integer());
        break;
      case Kind::kFloat:
        *out_ += JsonFloat(value.number());
        break;
      case Kind::kString:
        AppendJsonString(value.text(), style_.ensure_ascii, out_);
        break;
      case Kind::kDict:
        return WriteDict(*value.dict(), depth);
      case Kind::kList:
        if (value.list()->list_kind <= ListKind::kTuple) return WriteList(*value.list(), depth);
        return NotSerializable(value);
      default:
        return NotSerializable(value);
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status NotSerializable(const Value& value) {
    const std::string reason =
        value.is_undefined() ? absl::StrCat(" (", value.UndefinedReason(), ")") : "";
    return absl::InvalidArgumentError(
        absl::StrCat("Object of type ", TypeName(value), " is not JSON serializable", reason));
  }

  void NewLine(int depth) {
    if (!style_.indent.has_value()) return;
    out_->push_back('\n');
    for (int i = 0; i < depth; ++i) *out_ += *style_.indent;
  }

  absl::Status WriteList(const ListObject& list, int depth) {
    *out_ += "[";
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) *out_ += style_.item_separator;
      NewLine(depth + 1);
      DT_RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (!list.items.empty()) NewLine(depth);
    *out_ += "]";
    return absl::OkStatus();
  }

  static absl::StatusOr<std::string> KeyText(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return key.text();
      case Kind::kNone:
        return std::string("null");
      case Kind::kBool:
        return std::string(key.boolean() ? "true" : "false");
      case Kind::kInt:
        return absl::StrCat(key.integer());
      case Kind::kFloat:
        return JsonFloat(key.number());
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
    }
  }

  absl::Status WriteDict(const DictObject& dict, int depth) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      absl::Status status;
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        const absl::StatusOr<int> order = Compare(a->first, b->first, "<", runtime_);
        if (!order.ok()) status = order.status();
        return order.ok() && *order < 0;
      });
      DT_RETURN_IF_ERROR(status);
    }
    *out_ += "{";
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) *out_ += style_.item_separator;
      NewLine(depth + 1);
      DT_ASSIGN_OR_RETURN(const std::string key, KeyText(entries[i]->first));
      AppendJsonString(key, style_.ensure_ascii, out_);
      *out_ += style_.key_separator;
      DT_RETURN_IF_ERROR(Write(entries[i]->second, depth + 1));
    }
    if (!entries.empty()) NewLine(depth);
    *out_ += "}";
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  Runtime* runtime_;
  std::string* out_;
};

}  // namespace

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Runtime* runtime) {
  std::string out;
  DT_RETURN_IF_ERROR(JsonWriter(style, runtime, &out).Write(value, 0));
  return out;
}

}  // namespace dovetail::model::jinja
