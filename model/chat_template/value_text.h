// Values as text: Python's str() and repr(), and json.dumps() as Hugging Face's tojson calls it.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_TEXT_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_TEXT_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

// str(value): what {{ value }} prints. Undefined is "".
absl::StatusOr<std::string> ToText(const Value& value, Runtime* runtime);
// repr(value).
absl::StatusOr<std::string> ToRepr(const Value& value, Runtime* runtime);
// repr(float): the shortest digits that read back the same.
std::string FloatText(double number);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level's text
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style, Runtime* runtime);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_TEXT_H_
