#include "coordinator/chat/plain_tools.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/chat/call_json.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

std::string Instructions(const Json& tools) {
  std::string text =
      "You may call functions to help with the user's query. Their signatures are within "
      "<tools></tools>:\n<tools>\n";
  for (const Json& tool : tools) {
    absl::StrAppend(&text, tool.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
  }
  absl::StrAppend(&text,
                  "</tools>\nFor each call, return a JSON object with the function's name and "
                  "arguments within <tool_call></tool_call>:\n<tool_call>\n{\"name\": "
                  "<function-name>, \"arguments\": <arguments-object>}\n</tool_call>");
  return text;
}

std::string CallText(const ChatToolCall& call) {
  return absl::StrCat("<tool_call>\n{\"name\": ", QuotedJson(call.name),
                      ", \"arguments\": ", call.arguments, "}\n</tool_call>");
}

}  // namespace

std::vector<ChatMessage> PlainMessages(const std::vector<ChatMessage>& messages,
                                       const Json& tools) {
  std::vector<ChatMessage> plain;
  if (tools.is_array() && !tools.empty()) {
    std::string system = Instructions(tools);
    const bool has_system = !messages.empty() && messages[0].role == "system";
    if (has_system) system = absl::StrCat(messages[0].content, "\n\n", system);
    plain.push_back({"system", std::move(system)});
  }
  for (size_t i = plain.empty() || messages.empty() || messages[0].role != "system" ? 0 : 1;
       i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    ChatMessage out{message.role, message.content};
    for (const ChatToolCall& call : message.tool_calls) {
      absl::StrAppend(&out.content, out.content.empty() ? "" : "\n", CallText(call));
    }
    if (message.role == "tool") {
      out.role = "user";
      out.content = absl::StrCat("<tool_response>\n", message.content, "\n</tool_response>");
    }
    plain.push_back(std::move(out));
  }
  return plain;
}

}  // namespace dovetail::coordinator
