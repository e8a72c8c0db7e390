// What sort, unique, min, groupby, map and their kin share: "attribute" arguments and sort keys.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_SORT_KEYS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_SORT_KEYS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

// attribute="a.b.0": one access after the other; without one, the item itself.
class AttributePath {
 public:
  // `attribute` is a string, an integer or null. `default_value` stands in for what is undefined.
  AttributePath(const Value* attribute, Runtime* runtime, const Value* default_value = nullptr);
  absl::StatusOr<Value> Get(const Value& item) const;

 private:
  std::vector<Value> parts_;
  const Value* default_value_;
  Runtime* runtime_;
};

struct KeyedItem {
  Value key;
  Value value;
};
// Strings are compared without case unless `case_sensitive`.
absl::StatusOr<std::vector<KeyedItem>> MakeKeys(const std::vector<Value>& items,
                                                const AttributePath& path, bool case_sensitive,
                                                Runtime* runtime);
absl::Status SortByKey(bool reverse, Runtime* runtime, std::vector<KeyedItem>* items);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_SORT_KEYS_H_
