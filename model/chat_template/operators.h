// Arithmetic, comparison and membership of values.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_OPERATORS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_OPERATORS_H_

#include "absl/status/statusor.h"
#include "model/chat_template/ast.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

// + - * / // % **
absl::StatusOr<Value> Calculate(Operator op, const Value& left, const Value& right,
                                Runtime* runtime);
// == != < <= > >= in, not in
absl::StatusOr<bool> CompareWith(Operator op, const Value& left, const Value& right,
                                 Runtime* runtime);
absl::StatusOr<Value> Negate(const Value& value);

// HTML's five characters, as a Markup string does to what is added to it.
std::string EscapeHtml(absl::string_view text);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_OPERATORS_H_
