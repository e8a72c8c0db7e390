// value.name, value[index] and value[a:b:c] as Jinja's sandbox does them: items and attributes
// stand in for each other, and what is missing is undefined.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_ACCESS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_ACCESS_H_

#include "absl/status/statusor.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

// `name` is a string. An error if `value` is itself undefined.
absl::StatusOr<Value> GetAttribute(const Value& value, const Value& name, Runtime* runtime);
absl::StatusOr<Value> GetItem(const Value& value, const Value& index, Runtime* runtime);
// Null bounds are left out.
absl::StatusOr<Value> GetSlice(const Value& value, const Value* start, const Value* stop,
                               const Value* step, Runtime* runtime);

// Whether `key` may be a key of a dict: unhashable types are an error.
absl::Status CheckKey(const Value& key);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_ACCESS_H_
