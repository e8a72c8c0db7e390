#include "coordinator/http/openai_messages.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

MaybeError ReadRole(const Json& message, const std::string& at, std::string* role) {
  const Json* value = FindMember(message, "role");
  const std::string name = absl::StrCat(at, ".role");
  if (value == nullptr) return InvalidField(name, absl::StrCat("`", name, "` is required"));
  if (!value->is_string()) return WrongType(name, "a string", *value);
  *role = value->get<std::string>();
  if (*role == "developer") *role = "system";
  if (*role == "system" || *role == "user" || *role == "assistant") return std::nullopt;
  const std::string expected = "use system, developer, user or assistant";
  if (*role == "tool" || *role == "function") {
    return UnsupportedField(
        name, absl::StrCat("`", name, "`: the role \"", *role, "\" is not supported; ", expected));
  }
  return InvalidField(name, absl::StrCat("`", name, "`: unknown role \"", *role, "\"; ", expected));
}

MaybeError ReadPart(const Json& part, const std::string& at, std::string* content) {
  if (!part.is_object()) return WrongType(at, "an object", part);
  std::string type;
  if (MaybeError error = ReadString(part, "type", &type)) {
    return WrongType(absl::StrCat(at, ".type"), "a string", part["type"]);
  }
  if (type != "text") {
    const std::string name = absl::StrCat(at, ".type");
    if (type.empty()) return InvalidField(name, absl::StrCat("`", name, "` is required"));
    return UnsupportedField(name, absl::StrCat("`", name, "`: content of type \"", type,
                                               "\" is not supported; use text"));
  }
  const auto text = part.find("text");
  const std::string name = absl::StrCat(at, ".text");
  if (text == part.end()) return InvalidField(name, absl::StrCat("`", name, "` is required"));
  if (!text->is_string()) return WrongType(name, "a string", *text);
  content->append(text->get_ref<const std::string&>());
  return std::nullopt;
}

MaybeError ReadContent(const Json& message, const std::string& at, std::string* content) {
  const std::string name = absl::StrCat(at, ".content");
  const auto value = message.find("content");
  if (value == message.end()) {
    return InvalidField(name, absl::StrCat("`", name, "` is required"));
  }
  if (value->is_string()) {
    *content = value->get<std::string>();
    return std::nullopt;
  }
  if (!value->is_array()) return WrongType(name, "a string or an array of parts", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    if (i > 0) content->push_back('\n');
    if (MaybeError error = ReadPart((*value)[i], absl::StrCat(name, "[", i, "]"), content)) {
      return error;
    }
  }
  return std::nullopt;
}

// A past answer may carry what we could not have produced and cannot render.
MaybeError RefuseMessageFields(const Json& message, const std::string& at) {
  for (const char* field : {"tool_calls", "function_call", "audio"}) {
    const Json* value = FindMember(message, field);
    if (value == nullptr || (value->is_array() && value->empty())) continue;
    const std::string name = absl::StrCat(at, ".", field);
    return UnsupportedField(name, absl::StrCat("`", name, "` is not supported; leave it out"));
  }
  return std::nullopt;
}

}  // namespace

MaybeError ReadMessages(const Json& body, std::vector<ChatMessage>* messages) {
  const Json* array = FindMember(body, "messages");
  if (array == nullptr) return InvalidField("messages", "`messages` is required");
  if (!array->is_array()) return WrongType("messages", "an array", *array);
  if (array->empty()) return InvalidField("messages", "`messages` must not be empty");
  messages->reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    const Json& message = (*array)[i];
    const std::string at = absl::StrCat("messages[", i, "]");
    if (!message.is_object()) return WrongType(at, "an object", message);
    ChatMessage read;
    if (MaybeError error = ReadRole(message, at, &read.role)) return error;
    if (MaybeError error = RefuseMessageFields(message, at)) return error;
    if (MaybeError error = ReadContent(message, at, &read.content)) return error;
    messages->push_back(std::move(read));
  }
  return std::nullopt;
}

}  // namespace dovetail::coordinator
