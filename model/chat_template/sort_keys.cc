#include "model/chat_template/sort_keys.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/text.h"

namespace dovetail::model::jinja {

AttributePath::AttributePath(const Value* attribute, Runtime* runtime, const Value* default_value)
    : default_value_(default_value), runtime_(runtime) {
  if (attribute == nullptr || attribute->is_none()) return;
  if (!attribute->is_string()) {
    parts_.push_back(*attribute);
    return;
  }
  for (absl::string_view part : absl::StrSplit(attribute->text(), '.')) {
    int64_t index = 0;
    parts_.push_back(absl::SimpleAtoi(part, &index) ? Value::Int(index) : runtime->String(part));
  }
}

absl::StatusOr<Value> AttributePath::Get(const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    DT_ASSIGN_OR_RETURN(value, GetItem(value, part, runtime_));
    if (value.is_undefined() && default_value_ != nullptr) value = *default_value_;
  }
  return value;
}

absl::StatusOr<std::vector<KeyedItem>> MakeKeys(const std::vector<Value>& items,
                                                const AttributePath& path, bool case_sensitive,
                                                Runtime* runtime) {
  DT_RETURN_IF_ERROR(runtime->CheckRoom(2 * static_cast<int64_t>(items.size()) * kValueBytes));
  std::vector<KeyedItem> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) {
    DT_ASSIGN_OR_RETURN(Value key, path.Get(item));
    if (key.is_string() && !case_sensitive) {
      DT_RETURN_IF_ERROR(runtime->Spend(1 + static_cast<int64_t>(key.text().size()) / 16));
      key = runtime->String(LowerText(key.text()));
    }
    keyed.push_back({std::move(key), item});
  }
  return keyed;
}

absl::Status SortByKey(bool reverse, Runtime* runtime, std::vector<KeyedItem>* items) {
  absl::Status status;
  // Once something went wrong nothing is less than anything, and the sort runs out.
  const auto less = [&](const KeyedItem& a, const KeyedItem& b) {
    if (!status.ok()) return false;
    const absl::StatusOr<int> order =
        reverse ? Compare(b.key, a.key, "<", runtime) : Compare(a.key, b.key, "<", runtime);
    if (!order.ok()) status = order.status();
    return order.ok() && *order < 0;
  };
  std::stable_sort(items->begin(), items->end(), less);
  return status;
}

}  // namespace dovetail::model::jinja
