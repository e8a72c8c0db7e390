#include "coordinator/http/json_reader.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

// Brackets outside of strings; a text that is not JSON may give any number, and fails in the
// parser.
int NestingDepth(absl::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

// The library's message without its own error number.
std::string CleanMessage(absl::string_view what) {
  const size_t end = what.find("] ");
  if (!what.empty() && what.front() == '[' && end != absl::string_view::npos) {
    what.remove_prefix(end + 2);
  }
  return std::string(what);
}

}  // namespace

MaybeError ParseJson(absl::string_view text, int max_depth, Json* out) {
  if (text.empty()) return InvalidField("", "the request body is empty; JSON is expected");
  if (NestingDepth(text) > max_depth) {
    return InvalidField("", absl::StrCat("the request body is nested deeper than ", max_depth));
  }
  try {
    *out = Json::parse(text.begin(), text.end());
  } catch (const Json::exception& error) {
    return InvalidField(
        "", absl::StrCat("the request body is not valid JSON: ", CleanMessage(error.what())));
  }
  return std::nullopt;
}

const Json* FindMember(const Json& object, absl::string_view name) {
  const auto it = object.find(std::string(name));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

ApiError WrongType(absl::string_view name, absl::string_view expected, const Json& value) {
  absl::string_view got = value.type_name();
  const absl::string_view article = value.is_null()                           ? ""
                                    : (value.is_array() || value.is_object()) ? "an "
                                                                              : "a ";
  return InvalidField(name,
                      absl::StrCat("`", name, "` must be ", expected, ", not ", article, got));
}

MaybeError ReadBool(const Json& object, absl::string_view name, bool* out) {
  const Json* value = FindMember(object, name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) return WrongType(name, "true or false", *value);
  *out = value->get<bool>();
  return std::nullopt;
}

MaybeError ReadString(const Json& object, absl::string_view name, std::string* out) {
  const Json* value = FindMember(object, name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) return WrongType(name, "a string", *value);
  *out = value->get_ref<const std::string&>();
  return std::nullopt;
}

MaybeError ReadFloat(const Json& object, absl::string_view name, std::optional<float>* out) {
  const Json* value = FindMember(object, name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) return WrongType(name, "a number", *value);
  const double number = value->get<double>();
  if (!(std::abs(number) <= std::numeric_limits<float>::max())) {
    return InvalidField(name, absl::StrCat("`", name, "` is too large"));
  }
  *out = static_cast<float>(number);
  return std::nullopt;
}

MaybeError ReadInt(const Json& object, absl::string_view name, std::optional<int64_t>* out) {
  const Json* value = FindMember(object, name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    return value->is_number_float()
               ? InvalidField(name,
                              absl::StrCat("`", name, "` must be an integer, got ", value->dump()))
               : WrongType(name, "an integer", *value);
  }
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return InvalidField(name, absl::StrCat("`", name, "` is too large"));
  }
  *out = value->get<int64_t>();
  return std::nullopt;
}

MaybeError ReadSeed(const Json& object, absl::string_view name, std::optional<uint64_t>* out) {
  const Json* value = FindMember(object, name);
  if (value != nullptr && value->is_number_unsigned()) {
    *out = value->get<uint64_t>();
    return std::nullopt;
  }
  std::optional<int64_t> seed;
  if (MaybeError error = ReadInt(object, name, &seed)) return error;
  if (seed.has_value()) *out = static_cast<uint64_t>(*seed);
  return std::nullopt;
}

}  // namespace dovetail::coordinator
