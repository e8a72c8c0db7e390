// String and number literals of Jinja, which are Python's.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_LITERALS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_LITERALS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::model::jinja {

// The value of what stands between a string's quotes. Unknown escapes are kept as they are.
absl::StatusOr<std::string> UnescapeString(absl::string_view body);

struct NumberLiteral {
  size_t length = 0;  // bytes of the literal
  bool is_float = false;
  int64_t integer = 0;
  double number = 0;
};
// The number at the start of `text`, which begins with a digit. `after_dot`: "x.1.2" has no float.
absl::StatusOr<NumberLiteral> ReadNumber(absl::string_view text, bool after_dot);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_LITERALS_H_
