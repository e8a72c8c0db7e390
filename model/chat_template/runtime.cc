#include "model/chat_template/runtime.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {

absl::Status Runtime::Spend(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.max_steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("the template takes more than ", limits_.max_steps, " steps"));
  }
  return CheckRoom(0);
}

absl::Status Runtime::CheckRoom(int64_t bytes) const {
  if (bytes <= limits_.max_memory_bytes && memory_->bytes <= limits_.max_memory_bytes - bytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the template takes more than ", limits_.max_memory_bytes, " bytes of memory"));
}

Value Runtime::List(std::vector<Value> items, ListKind kind) {
  auto* list = New<ListObject>();
  list->list_kind = kind;
  list->items = std::move(items);
  AddBytes(static_cast<int64_t>(list->items.capacity()) * kValueBytes);
  return Value::Of(list);
}

namespace {

absl::StatusOr<const std::vector<Value>*> Characters(const std::string& text, Runtime* runtime) {
  const auto count = static_cast<int64_t>(text.size());
  DT_RETURN_IF_ERROR(
      runtime->CheckRoom(count * (kValueBytes + static_cast<int64_t>(sizeof(StringData)))));
  DT_RETURN_IF_ERROR(runtime->Spend(count));
  std::vector<Value> items;
  for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
    items.push_back(runtime->String(text.substr(at, Utf8Length(text[at]))));
  }
  return &runtime->List(std::move(items)).list()->items;
}

}  // namespace

absl::StatusOr<const std::vector<Value>*> Iterate(const Value& value, Runtime* runtime) {
  static const auto* const kNothing = new std::vector<Value>();
  switch (value.kind()) {
    case Kind::kUndefined:
      return kNothing;
    case Kind::kString:
      return Characters(value.text(), runtime);
    case Kind::kList: {
      ListObject* list = value.list();
      DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(list->items.size())));
      if (list->list_kind != ListKind::kGenerator) return &list->items;
      if (list->used_up) return kNothing;
      list->used_up = true;
      return &list->items;
    }
    case Kind::kDict: {
      const auto& entries = value.dict()->entries;
      DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(entries.size())));
      DT_RETURN_IF_ERROR(runtime->CheckRoom(static_cast<int64_t>(entries.size()) * kValueBytes));
      std::vector<Value> keys;
      keys.reserve(entries.size());
      for (const auto& [key, item] : entries) keys.push_back(key);
      return &runtime->List(std::move(keys)).list()->items;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("'", TypeName(value), "' object is not iterable"));
  }
}

}  // namespace dovetail::model::jinja
