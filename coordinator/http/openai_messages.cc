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
  if (*role == "tool") return std::nullopt;
  const std::string expected = "use system, developer, user, assistant or tool";
  if (*role == "function") {
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

MaybeError ReadContent(const Json& message, const std::string& at, bool may_be_absent,
                       std::string* content) {
  const std::string name = absl::StrCat(at, ".content");
  const auto value = message.find("content");
  if (value == message.end() || (value->is_null() && may_be_absent)) {
    if (may_be_absent) return std::nullopt;
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

MaybeError ReadCall(const Json& call, const std::string& at, ChatToolCall* out) {
  if (!call.is_object()) return WrongType(at, "an object", call);
  if (MaybeError error = ReadString(call, "id", &out->id)) return error;
  const std::string name = absl::StrCat(at, ".function");
  const Json* function = FindMember(call, "function");
  if (function == nullptr) return InvalidField(name, absl::StrCat("`", name, "` is required"));
  if (!function->is_object()) return WrongType(name, "an object", *function);
  if (MaybeError error = ReadString(*function, "name", &out->name)) return error;
  if (out->name.empty()) {
    return InvalidField(absl::StrCat(name, ".name"), absl::StrCat("`", name, ".name` is required"));
  }
  out->arguments = "{}";
  const Json* arguments = FindMember(*function, "arguments");
  if (arguments == nullptr) return std::nullopt;
  if (!arguments->is_string()) {
    return WrongType(absl::StrCat(name, ".arguments"), "a string of JSON", *arguments);
  }
  if (!arguments->get_ref<const std::string&>().empty()) {
    out->arguments = arguments->get<std::string>();
  }
  return std::nullopt;
}

MaybeError ReadCalls(const Json& message, const std::string& at, ChatMessage* out) {
  const Json* calls = FindMember(message, "tool_calls");
  if (calls == nullptr) return std::nullopt;
  const std::string name = absl::StrCat(at, ".tool_calls");
  if (!calls->is_array()) return WrongType(name, "an array", *calls);
  if (!calls->empty() && out->role != "assistant") {
    return InvalidField(name, absl::StrCat("`", name, "` is only allowed for an assistant"));
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    ChatToolCall call;
    if (MaybeError error = ReadCall((*calls)[i], absl::StrCat(name, "[", i, "]"), &call)) {
      return error;
    }
    out->tool_calls.push_back(std::move(call));
  }
  return std::nullopt;
}

// A past answer may carry what we could not have produced and cannot render.
MaybeError RefuseMessageFields(const Json& message, const std::string& at) {
  for (const char* field : {"function_call", "audio"}) {
    if (FindMember(message, field) == nullptr) continue;
    const std::string name = absl::StrCat(at, ".", field);
    return UnsupportedField(name, absl::StrCat("`", name, "` is not supported; leave it out"));
  }
  return std::nullopt;
}

MaybeError ReadMessage(const Json& message, const std::string& at, ChatMessage* read) {
  if (!message.is_object()) return WrongType(at, "an object", message);
  if (MaybeError error = ReadRole(message, at, &read->role)) return error;
  if (MaybeError error = RefuseMessageFields(message, at)) return error;
  if (MaybeError error = ReadCalls(message, at, read)) return error;
  if (MaybeError error = ReadContent(message, at, !read->tool_calls.empty(), &read->content)) {
    return error;
  }
  if (MaybeError error = ReadString(message, "name", &read->name)) return error;
  if (MaybeError error = ReadString(message, "tool_call_id", &read->tool_call_id)) return error;
  if (read->role == "tool" && read->tool_call_id.empty()) {
    const std::string name = absl::StrCat(at, ".tool_call_id");
    return InvalidField(name, absl::StrCat("`", name, "` is required"));
  }
  // What other servers call it.
  if (MaybeError error = ReadString(message, "reasoning", &read->reasoning)) return error;
  return ReadString(message, "reasoning_content", &read->reasoning);
}

}  // namespace

MaybeError ReadMessages(const Json& body, std::vector<ChatMessage>* messages) {
  const Json* array = FindMember(body, "messages");
  if (array == nullptr) return InvalidField("messages", "`messages` is required");
  if (!array->is_array()) return WrongType("messages", "an array", *array);
  if (array->empty()) return InvalidField("messages", "`messages` must not be empty");
  messages->reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    ChatMessage read;
    if (MaybeError error = ReadMessage((*array)[i], absl::StrCat("messages[", i, "]"), &read)) {
      return error;
    }
    messages->push_back(std::move(read));
  }
  return std::nullopt;
}

}  // namespace dovetail::coordinator
