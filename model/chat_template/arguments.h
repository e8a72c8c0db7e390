// Binding the arguments of filters, tests, methods and functions to their parameters.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_ARGUMENTS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_ARGUMENTS_H_

#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

// The arguments in the order of `names`; nullptr where one was not given. Refuses too many, unknown
// and doubled ones, and fewer than `required`. The values live as long as `arguments`.
absl::StatusOr<std::vector<const Value*>> BindArguments(
    const CallArguments& arguments, absl::string_view function,
    std::initializer_list<absl::string_view> names, size_t required);

// TypeErrors for arguments of the wrong type. A null `value` gives `fallback`.
absl::StatusOr<int64_t> IntegerOr(const Value* value, int64_t fallback, absl::string_view name);
absl::StatusOr<std::string> StringOr(const Value* value, absl::string_view fallback,
                                     absl::string_view name);
inline bool TruthOr(const Value* value, bool fallback) {
  return value == nullptr ? fallback : IsTrue(*value);
}

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_ARGUMENTS_H_
