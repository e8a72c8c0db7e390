#include "coordinator/http/anthropic_request.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

// Fields with the same name and meaning in both APIs.
constexpr const char* kSame[] = {"model", "max_tokens", "stream", "temperature", "top_p", "top_k"};
// Fields that are translated below.
constexpr const char* kTranslated[] = {"messages",    "system",   "stop_sequences", "tools",
                                       "tool_choice", "thinking", "output_config"};
// Fields that ask for nothing that could change the answer.
constexpr const char* kIgnored[] = {"metadata",        "cache_control", "service_tier",
                                    "inference_geo",   "diagnostics",   "speed",
                                    "user_profile_id", "workspace_id"};
constexpr const char* kRefused[] = {"container", "mcp_servers", "context_management"};

template <size_t N>
bool IsIn(const char* const (&names)[N], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

ApiError Unsupported(const std::string& name) {
  return UnsupportedField(name, absl::StrCat("`", name, "` is not supported; leave it out"));
}

MaybeError SortFields(const Json& body, Json* chat, std::vector<std::string>* unknown) {
  for (const auto& [name, value] : body.items()) {
    if (IsIn(kSame, name)) {
      (*chat)[name] = value;
    } else if (IsIn(kRefused, name)) {
      const bool asks = !value.is_null() && !(value.is_array() && value.empty());
      if (asks) return Unsupported(name);
    } else if (!IsIn(kTranslated, name) && !IsIn(kIgnored, name)) {
      unknown->push_back(name);
    }
  }
  if (FindMember(body, "max_tokens") == nullptr) {
    return InvalidField("max_tokens", "`max_tokens` is required");
  }
  return std::nullopt;
}

// The text of a string, or of blocks of text.
MaybeError ReadText(const Json& value, const std::string& at, std::string* text) {
  if (value.is_string()) {
    *text = value.get<std::string>();
    return std::nullopt;
  }
  if (!value.is_array()) return WrongType(at, "a string or an array of blocks", value);
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string name = absl::StrCat(at, "[", i, "]");
    if (!value[i].is_object()) return WrongType(name, "an object", value[i]);
    std::string type;
    std::string piece;
    if (MaybeError error = ReadString(value[i], "type", &type)) return error;
    if (type != "text") {
      return UnsupportedField(absl::StrCat(name, ".type"),
                              absl::StrCat("`", name, ".type`: a block of type \"", type,
                                           "\" is not supported here; use text"));
    }
    if (MaybeError error = ReadString(value[i], "text", &piece)) return error;
    absl::StrAppend(text, i > 0 ? "\n" : "", piece);
  }
  return std::nullopt;
}

// One of the blocks of a message, added to the OpenAI message that is being made, or to those
// before it: the result of a tool is a message of its own there.
MaybeError TranslateBlock(const Json& block, const std::string& at, Json* message,
                          Json* tool_messages) {
  std::string type;
  if (!block.is_object()) return WrongType(at, "an object", block);
  if (MaybeError error = ReadString(block, "type", &type)) return error;
  if (type == "text") {
    const Json* text = FindMember(block, "text");
    if (text == nullptr || !text->is_string()) {
      return InvalidField(at, absl::StrCat("`", at, ".text` must be a string"));
    }
    (*message)["content"].push_back({{"type", "text"}, {"text", *text}});
    return std::nullopt;
  }
  if (type == "thinking" || type == "redacted_thinking") return std::nullopt;  // of earlier turns
  if (type == "tool_use") {
    std::string id, name;
    if (MaybeError error = ReadString(block, "id", &id)) return error;
    if (MaybeError error = ReadString(block, "name", &name)) return error;
    const Json* input = FindMember(block, "input");
    (*message)["tool_calls"].push_back(
        {{"id", id},
         {"type", "function"},
         {"function", {{"name", name}, {"arguments", input == nullptr ? "{}" : input->dump()}}}});
    return std::nullopt;
  }
  if (type == "tool_result") {
    std::string id, text;
    if (MaybeError error = ReadString(block, "tool_use_id", &id)) return error;
    if (const Json* content = FindMember(block, "content")) {
      if (MaybeError error = ReadText(*content, absl::StrCat(at, ".content"), &text)) return error;
    }
    tool_messages->push_back({{"role", "tool"}, {"tool_call_id", id}, {"content", text}});
    return std::nullopt;
  }
  return UnsupportedField(absl::StrCat(at, ".type"),
                          absl::StrCat("`", at, ".type`: a block of type \"", type,
                                       "\" is not supported; use text, tool_use, tool_result"));
}

MaybeError TranslateMessage(const Json& message, const std::string& at, Json* messages) {
  if (!message.is_object()) return WrongType(at, "an object", message);
  std::string role;
  if (MaybeError error = ReadString(message, "role", &role)) return error;
  if (role != "user" && role != "assistant") {
    return InvalidField(absl::StrCat(at, ".role"),
                        absl::StrCat("`", at, ".role` must be user or assistant"));
  }
  const Json* content = FindMember(message, "content");
  if (content == nullptr) {
    return InvalidField(absl::StrCat(at, ".content"),
                        absl::StrCat("`", at, ".content` is required"));
  }
  if (!content->is_array()) {
    messages->push_back({{"role", role}, {"content", *content}});
    return std::nullopt;
  }
  Json translated = {{"role", role}, {"content", Json::array()}};
  for (size_t i = 0; i < content->size(); ++i) {
    if (MaybeError error = TranslateBlock((*content)[i], absl::StrCat(at, ".content[", i, "]"),
                                          &translated, messages)) {
      return error;
    }
  }
  const bool only_results = translated["content"].empty() && translated.count("tool_calls") == 0;
  if (translated["content"].empty()) translated["content"] = "";
  if (!only_results || content->empty()) messages->push_back(std::move(translated));
  return std::nullopt;
}

MaybeError TranslateMessages(const Json& body, Json* chat) {
  Json messages = Json::array();
  if (const Json* system = FindMember(body, "system")) {
    std::string text;
    if (MaybeError error = ReadText(*system, "system", &text)) return error;
    messages.push_back({{"role", "system"}, {"content", text}});
  }
  const Json* given = FindMember(body, "messages");
  if (given == nullptr) return InvalidField("messages", "`messages` is required");
  if (!given->is_array()) return WrongType("messages", "an array", *given);
  if (given->empty()) return InvalidField("messages", "`messages` must not be empty");
  for (size_t i = 0; i < given->size(); ++i) {
    if (MaybeError error =
            TranslateMessage((*given)[i], absl::StrCat("messages[", i, "]"), &messages)) {
      return error;
    }
  }
  (*chat)["messages"] = std::move(messages);
  return std::nullopt;
}

MaybeError TranslateTools(const Json& body, Json* chat) {
  const Json* tools = FindMember(body, "tools");
  if (tools == nullptr) return std::nullopt;
  if (!tools->is_array()) return WrongType("tools", "an array", *tools);
  for (size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string at = absl::StrCat("tools[", i, "]");
    if (!tool.is_object()) return WrongType(at, "an object", tool);
    std::string type = "custom";
    if (MaybeError error = ReadString(tool, "type", &type)) return error;
    if (type != "custom") {
      return UnsupportedField(absl::StrCat(at, ".type"),
                              absl::StrCat("`", at, ".type`: the tool \"", type,
                                           "\" runs at Anthropic; only custom tools are there"));
    }
    Json function = Json::object();
    for (const auto& [from, to] : {std::pair("name", "name"),
                                   {"description", "description"},
                                   {"input_schema", "parameters"},
                                   {"strict", "strict"}}) {
      if (const Json* value = FindMember(tool, from)) function[to] = *value;
    }
    (*chat)["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return std::nullopt;
}

MaybeError TranslateToolChoice(const Json& body, Json* chat) {
  const Json* choice = FindMember(body, "tool_choice");
  if (choice == nullptr) return std::nullopt;
  if (!choice->is_object()) return WrongType("tool_choice", "an object", *choice);
  std::string type, name;
  if (MaybeError error = ReadString(*choice, "type", &type)) return error;
  if (MaybeError error = ReadString(*choice, "name", &name)) return error;
  if (type == "auto" || type == "none") {
    (*chat)["tool_choice"] = type;
  } else if (type == "any") {
    (*chat)["tool_choice"] = "required";
  } else if (type == "tool") {
    (*chat)["tool_choice"] = {{"type", "function"}, {"function", {{"name", name}}}};
  } else {
    return InvalidField("tool_choice", "`tool_choice.type` must be auto, any, tool or none");
  }
  bool one = false;
  if (MaybeError error = ReadBool(*choice, "disable_parallel_tool_use", &one)) return error;
  if (one) (*chat)["parallel_tool_calls"] = false;
  return std::nullopt;
}

MaybeError TranslateOutput(const Json& body, Json* chat) {
  if (const Json* thinking = FindMember(body, "thinking")) {
    std::string type;
    if (!thinking->is_object()) return WrongType("thinking", "an object", *thinking);
    if (MaybeError error = ReadString(*thinking, "type", &type)) return error;
    if (type != "disabled") return Unsupported("thinking");
  }
  const Json* config = FindMember(body, "output_config");
  if (config == nullptr) return std::nullopt;
  if (!config->is_object()) return WrongType("output_config", "an object", *config);
  const Json* format = FindMember(*config, "format");
  if (format == nullptr) return std::nullopt;
  if (!format->is_object()) return WrongType("output_config.format", "an object", *format);
  const Json* schema = FindMember(*format, "schema");
  if (schema == nullptr) return Unsupported("output_config.format");
  (*chat)["response_format"] = {
      {"type", "json_schema"},
      {"json_schema", {{"name", "answer"}, {"schema", *schema}, {"strict", true}}}};
  return std::nullopt;
}

}  // namespace

MaybeError TranslateAnthropicRequest(const Json& body, Json* chat,
                                     std::vector<std::string>* unknown) {
  *chat = Json::object();
  if (MaybeError error = SortFields(body, chat, unknown)) return error;
  if (const Json* stop = FindMember(body, "stop_sequences")) {
    if (!stop->is_array()) return WrongType("stop_sequences", "an array of strings", *stop);
    (*chat)["stop"] = *stop;
  }
  if (MaybeError error = TranslateMessages(body, chat)) return error;
  if (MaybeError error = TranslateTools(body, chat)) return error;
  if (MaybeError error = TranslateToolChoice(body, chat)) return error;
  return TranslateOutput(body, chat);
}

ApiError InAnthropicWords(ApiError error) {
  error.message = absl::StrReplaceAll(error.message, {{"`stop`", "`stop_sequences`"},
                                                      {"`stop[", "`stop_sequences["},
                                                      {"`response_format`", "`output_config`"}});
  return error;
}

}  // namespace dovetail::coordinator
