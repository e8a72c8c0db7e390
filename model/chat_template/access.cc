#include "model/chat_template/access.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

Value LoopAttribute(const LoopObject& loop, const std::string& name) {
  const auto length = static_cast<int64_t>(loop.items->size());
  const int64_t at = loop.index0;
  if (name == "index") return Value::Int(at + 1);
  if (name == "index0") return Value::Int(at);
  if (name == "revindex") return Value::Int(length - at);
  if (name == "revindex0") return Value::Int(length - at - 1);
  if (name == "first") return Value::Bool(at == 0);
  if (name == "last") return Value::Bool(at + 1 == length);
  if (name == "length") return Value::Int(length);
  if (name == "depth") return Value::Int(loop.depth0 + 1);
  if (name == "depth0") return Value::Int(loop.depth0);
  if (name == "previtem" && at > 0) return (*loop.items)[at - 1];
  if (name == "nextitem" && at + 1 < length) return (*loop.items)[at + 1];
  return Value();
}

// A method as a value of its own: {{ message.items }}, or {% if tool.get %}.
std::optional<Value> BoundMethod(const Value& value, const std::string& name, Runtime* runtime) {
  const MethodFunction method = FindMethod(value, name);
  if (method == nullptr) return std::nullopt;
  auto* callable = runtime->New<CallableObject>();
  callable->name = name;
  callable->call = [value, method, runtime](const CallArguments& arguments) {
    return method(value, arguments, runtime);
  };
  return Value::Of(callable);
}

// What Python's getattr() finds.
std::optional<Value> OwnAttribute(const Value& value, const std::string& name, Runtime* runtime) {
  if (value.kind() == Kind::kNamespace) {
    const Value* found = value.ns()->values.Find(absl::string_view(name));
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (value.kind() == Kind::kLoop) {
    const Value found = LoopAttribute(*value.loop(), name);
    if (!found.is_undefined()) return found;
  }
  return BoundMethod(value, name, runtime);
}

// What value[index] finds, without falling back to attributes.
absl::StatusOr<std::optional<Value>> OwnItem(const Value& value, const Value& index,
                                             Runtime* runtime) {
  if (value.kind() == Kind::kDict) {
    if (!CheckKey(index).ok()) return std::nullopt;
    if (!index.is_string()) {
      DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(value.dict()->entries.size())));
    }
    const Value* found = value.dict()->Find(index);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (!index.is_integral()) return std::nullopt;
  int64_t at = index.integer();
  if (value.kind() == Kind::kList && value.list()->list_kind <= ListKind::kRange) {
    const auto& items = value.list()->items;
    if (at < 0) at += static_cast<int64_t>(items.size());
    if (at < 0 || at >= static_cast<int64_t>(items.size())) return std::nullopt;
    return items[at];
  }
  if (value.is_string()) {
    const std::string& text = value.text();
    DT_RETURN_IF_ERROR(runtime->Spend(1 + static_cast<int64_t>(text.size()) / 64));
    if (at < 0) at += CodePointCount(text);
    const size_t begin = ByteOffset(text, at);
    if (at < 0 || begin >= text.size()) return std::nullopt;
    return runtime->String(text.substr(begin, Utf8Length(text[begin])));
  }
  return std::nullopt;
}

struct SliceRange {
  int64_t start;
  int64_t stop;
  int64_t step;
};

absl::StatusOr<std::optional<int64_t>> SliceBound(const Value* bound) {
  if (bound == nullptr || bound->is_none()) return std::nullopt;
  if (bound->is_integral()) return bound->integer();
  if (bound->is_undefined()) return absl::InvalidArgumentError(bound->UndefinedReason());
  return absl::InvalidArgumentError("slice indices must be integers or None");
}

// Python's slice.indices().
absl::StatusOr<SliceRange> ResolveSlice(const Value* start, const Value* stop, const Value* step,
                                        int64_t length) {
  DT_ASSIGN_OR_RETURN(const std::optional<int64_t> first, SliceBound(start));
  DT_ASSIGN_OR_RETURN(const std::optional<int64_t> last, SliceBound(stop));
  DT_ASSIGN_OR_RETURN(const std::optional<int64_t> stride, SliceBound(step));
  SliceRange range{0, 0, stride.value_or(1)};
  if (range.step == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  range.step = std::clamp<int64_t>(range.step, -length - 1, length + 1);
  const int64_t low = range.step > 0 ? 0 : -1;
  const int64_t high = range.step > 0 ? length : length - 1;
  const auto resolve = [&](const std::optional<int64_t>& bound, int64_t fallback) {
    if (!bound.has_value()) return fallback;
    const int64_t at = *bound < 0 ? std::max<int64_t>(*bound, -length - 1) + length : *bound;
    return std::clamp(at, low, high);
  };
  range.start = resolve(first, range.step > 0 ? low : high);
  range.stop = resolve(last, range.step > 0 ? high : low);
  return range;
}

}  // namespace

absl::StatusOr<Value> GetAttribute(const Value& value, const Value& name, Runtime* runtime) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.UndefinedReason());
  if (std::optional<Value> own = OwnAttribute(value, name.text(), runtime)) return *std::move(own);
  if (value.kind() == Kind::kDict) {
    if (const Value* found = value.dict()->Find(name)) return *found;
  }
  return Value::Undefined(name, value.kind());
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& index, Runtime* runtime) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.UndefinedReason());
  DT_ASSIGN_OR_RETURN(std::optional<Value> item, OwnItem(value, index, runtime));
  if (item.has_value()) return *std::move(item);
  if (index.is_string()) {
    if (std::optional<Value> own = OwnAttribute(value, index.text(), runtime)) {
      return *std::move(own);
    }
    return Value::Undefined(index, value.kind());
  }
  DT_ASSIGN_OR_RETURN(const std::string text, ToText(index, runtime));
  return Value::Undefined(runtime->String(text), value.kind());
}

absl::StatusOr<Value> GetSlice(const Value& value, const Value* start, const Value* stop,
                               const Value* step, Runtime* runtime) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.UndefinedReason());
  if (value.is_string()) {
    const std::string& text = value.text();
    DT_RETURN_IF_ERROR(runtime->Spend(1 + static_cast<int64_t>(text.size()) / 16));
    DT_ASSIGN_OR_RETURN(const SliceRange range,
                        ResolveSlice(start, stop, step, CodePointCount(text)));
    if (range.step == 1) {
      const size_t begin = ByteOffset(text, range.start);
      const size_t end = ByteOffset(text, std::max(range.start, range.stop));
      return runtime->String(text.substr(begin, end - begin));
    }
    std::vector<size_t> offsets;
    for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) offsets.push_back(at);
    std::string out;
    for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop;
         i += range.step) {
      out += text.substr(offsets[i], Utf8Length(text[offsets[i]]));
    }
    return runtime->String(std::move(out));
  }
  if (value.kind() != Kind::kList || value.list()->list_kind > ListKind::kRange) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", TypeName(value), "' object cannot be sliced"));
  }
  const auto& items = value.list()->items;
  const auto length = static_cast<int64_t>(items.size());
  DT_ASSIGN_OR_RETURN(const SliceRange range, ResolveSlice(start, stop, step, length));
  DT_RETURN_IF_ERROR(runtime->Spend(length));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(length * kValueBytes));
  std::vector<Value> out;
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    out.push_back(items[i]);
  }
  return runtime->List(std::move(out), value.list()->list_kind);
}

absl::Status CheckKey(const Value& key) {
  const auto is_container = [](const Value& value) {
    return value.kind() == Kind::kList || value.kind() == Kind::kDict;
  };
  if (!is_container(key)) return absl::OkStatus();
  const bool tuple = key.kind() == Kind::kList && key.list()->list_kind == ListKind::kTuple;
  if (tuple && std::none_of(key.list()->items.begin(), key.list()->items.end(), is_container)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unhashable type: '", TypeName(key), "'"));
}

}  // namespace dovetail::model::jinja
