#include "model/chat_template/arguments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace dovetail::model::jinja {

absl::StatusOr<std::vector<const Value*>> BindArguments(
    const CallArguments& arguments, absl::string_view function,
    std::initializer_list<absl::string_view> names, size_t required) {
  if (arguments.positional.size() > names.size()) {
    return absl::InvalidArgumentError(absl::StrCat(function, "() takes at most ", names.size(),
                                                   " arguments, ", arguments.positional.size(),
                                                   " were given"));
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      return absl::InvalidArgumentError(absl::StrCat(function, "() has no argument '", name, "'"));
    }
    const Value*& slot = bound[found - names.begin()];
    if (slot != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(function, "() was given '", name, "' twice"));
    }
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] != nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(function, "() needs the argument '", names.begin()[i], "'"));
  }
  return bound;
}

absl::StatusOr<int64_t> IntegerOr(const Value* value, int64_t fallback, absl::string_view name) {
  if (value == nullptr) return fallback;
  if (value->is_integral()) return value->integer();
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' must be an integer, not ", TypeName(*value)));
}

absl::StatusOr<std::string> StringOr(const Value* value, absl::string_view fallback,
                                     absl::string_view name) {
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->text();
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' must be a string, not ", TypeName(*value)));
}

}  // namespace dovetail::model::jinja
