#include "coordinator/chat/plain_tools.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/chat/call_json.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

std::string Instructions(const Json& tools, bool in_hermes_form) {
  std::string text =
      "You may call functions to help with the user's query. Their signatures are within "
      "<tools></tools>:\n<tools>\n";
  for (const Json& tool : tools) {
    absl::StrAppend(&text, tool.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
  }
  absl::StrAppend(&text, "</tools>");
  if (!in_hermes_form) return text;
  absl::StrAppend(&text,
                  "\nFor each call, return a JSON object with the function's name and "
                  "arguments within <tool_call></tool_call>:\n<tool_call>\n{\"name\": "
                  "<function-name>, \"arguments\": <arguments-object>}\n</tool_call>");
  return text;
}

std::string CallText(const ChatToolCall& call) {
  return absl::StrCat("<tool_call>\n{\"name\": ", QuotedJson(call.name),
                      ", \"arguments\": ", call.arguments, "}\n</tool_call>");
}

ChatMessage PlainMessage(const ChatMessage& message) {
  ChatMessage plain{message.role, message.content};
  for (const ChatToolCall& call : message.tool_calls) {
    absl::StrAppend(&plain.content, plain.content.empty() ? "" : "\n", CallText(call));
  }
  if (message.role == "tool") {
    plain.role = "user";
    plain.content = absl::StrCat("<tool_response>\n", message.content, "\n</tool_response>");
  }
  return plain;
}

}  // namespace

std::vector<ChatMessage> WithToolsAsText(const std::vector<ChatMessage>& messages,
                                         const Json& tools, bool template_writes_calls) {
  std::vector<ChatMessage> result;
  const bool has_system = !messages.empty() && messages[0].role == "system";
  size_t first = 0;
  if (tools.is_array() && !tools.empty()) {
    std::string system = Instructions(tools, !template_writes_calls);
    if (has_system) {
      system = absl::StrCat(messages[0].content, "\n\n", system);
      first = 1;
    }
    result.push_back({"system", std::move(system)});
  }
  for (size_t i = first; i < messages.size(); ++i) {
    result.push_back(template_writes_calls ? messages[i] : PlainMessage(messages[i]));
  }
  return result;
}

}  // namespace dovetail::coordinator
