#include "coordinator/chat/chat_format.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/chat/plain_tools.h"
#include "coordinator/chat/tool_grammar.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kReserved[] = {"messages",  "tools",     "documents",
                                           "bos_token", "eos_token", "add_generation_prompt"};

// The functions that may be called, and which of their arguments are strings.
struct Functions {
  std::vector<ToolFunction> callable;
  std::map<std::string, std::map<std::string, bool>> string_arguments;
};

bool IsStringSchema(const Json& schema) {
  if (!schema.is_object() || !schema.contains("type")) return false;
  const Json& type = schema["type"];
  return type == "string" || (type.is_array() && type.size() == 1 && type[0] == "string");
}

Functions ReadFunctions(const ChatOptions& options) {
  Functions functions;
  for (const Json& tool : options.tools) {
    const Json& function = tool.at("function");
    ToolFunction read;
    read.name = function.at("name").get<std::string>();
    auto& strings = functions.string_arguments[read.name];
    if (const auto it = function.find("parameters"); it != function.end()) read.parameters = *it;
    if (read.parameters.is_object() && read.parameters.contains("properties") &&
        read.parameters["properties"].is_object()) {
      for (const auto& [name, schema] : read.parameters["properties"].items()) {
        strings[name] = IsStringSchema(schema);
      }
    }
    const auto& allowed = options.allowed_tools;
    if (allowed.empty() || std::find(allowed.begin(), allowed.end(), read.name) != allowed.end()) {
      functions.callable.push_back(std::move(read));
    }
  }
  return functions;
}

// gpt-oss' template wants of every function what OpenAI's API leaves open.
Json ToolsFor(const ChatDialect* dialect, Json tools) {
  if (dialect == nullptr || dialect->style != CallStyle::kHarmony) return tools;
  for (Json& tool : tools) {
    Json& function = tool["function"];
    if (!function.contains("description")) function["description"] = "";
    if (!function.contains("parameters")) function["parameters"] = {{"type", "object"}};
  }
  return tools;
}

// A client's format as a part of a structural tag.
Json FormatJson(const GrammarSpec& spec) {
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      return {{"type", "json_schema"}, {"json_schema", {{"type", "object"}}}};
    case GrammarKind::kJsonSchema:
      return {{"type", "json_schema"}, {"json_schema", Json::parse(spec.source, nullptr, false)}};
    case GrammarKind::kRegex:
      return {{"type", "regex"}, {"pattern", spec.source}};
    case GrammarKind::kEbnf:
      return {{"type", "grammar"}, {"grammar", spec.source}};
    case GrammarKind::kStructuralTag:
      break;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormat::Create(
    const model::ChatTemplate* chat_template, const ChatFormatOptions& options) {
  auto format = absl::WrapUnique(new ChatFormat(chat_template, options));
  format->template_has_tools_ = absl::StrContains(options.source, "tools");
  format->FindOutHowCallsAreWritten();
  if (options.tool_parser == "auto") {
    format->dialect_ = DetectDialect(options.source);
    if (format->dialect_ == nullptr && !format->template_has_tools_) {
      format->dialect_ = FindDialect("hermes");
    }
  } else if (options.tool_parser != "none") {
    format->dialect_ = FindDialect(options.tool_parser);
    if (format->dialect_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("`tool_parser` is \"", options.tool_parser,
                                                     "\"; use auto, none, ", DialectNames()));
    }
  }
  if (options.reasoning_parser != "auto" && options.reasoning_parser != "think" &&
      options.reasoning_parser != "none") {
    return absl::InvalidArgumentError(absl::StrCat(
        "`reasoning_parser` is \"", options.reasoning_parser, "\"; use auto, think or none"));
  }
  format->thinks_ = options.reasoning_parser == "think" ||
                    (options.reasoning_parser == "auto" && TemplateThinks(options.source));
  return format;
}

// Templates differ in whether they want arguments as an object or as its text, and "" or null as
// the content beside calls; the wrong one is an error or a text that is no JSON. Tried out once.
void ChatFormat::FindOutHowCallsAreWritten() {
  ChatMessage call{"assistant", ""};
  call.tool_calls = {{"call_1", "f", R"({"needle_key": "needle"})"}};
  ChatMessage result{"tool", "x"};
  result.tool_call_id = "call_1";
  ChatOptions options;
  options.tools = Json::array();
  options.tools.push_back({{"type", "function"}, {"function", {{"name", "f"}}}});
  for (const bool null_content : {false, true}) {
    for (const bool object_arguments : {true, false}) {
      object_arguments_ = object_arguments;
      null_content_ = null_content;
      const auto text = Render({{"user", "x"}, call, result}, options, true);
      if (text.ok() && absl::StrContains(*text, "needle") &&
          !absl::StrContains(*text, "'needle_key'") && !absl::StrContains(*text, "\\\"needle")) {
        return;
      }
    }
  }
  object_arguments_ = true;
  null_content_ = false;
}

Json ChatFormat::MessageJson(const ChatMessage& message) const {
  Json json;
  json["role"] = message.role;
  const bool only_calls = message.content.empty() && !message.tool_calls.empty();
  json["content"] = only_calls && null_content_ ? Json(nullptr) : Json(message.content);
  if (!message.name.empty()) json["name"] = message.name;
  if (!message.reasoning.empty()) json["reasoning_content"] = message.reasoning;
  if (!message.tool_call_id.empty()) json["tool_call_id"] = message.tool_call_id;
  for (const ChatToolCall& call : message.tool_calls) {
    Json arguments = call.arguments;
    if (object_arguments_) {
      Json object = Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
      if (object.is_object()) arguments = std::move(object);
    }
    json["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", std::move(arguments)}}}});
  }
  return json;
}

absl::StatusOr<std::string> ChatFormat::Render(const std::vector<ChatMessage>& messages,
                                               const ChatOptions& options, bool with_tools) const {
  Json context;
  context["messages"] = Json::array();
  for (const ChatMessage& message : messages) context["messages"].push_back(MessageJson(message));
  context["tools"] = with_tools && template_has_tools_ ? ToolsFor(dialect_, options.tools) : Json();
  context["documents"] = nullptr;
  context["add_generation_prompt"] = true;
  context["bos_token"] = options_.bos_text;
  context["eos_token"] = options_.eos_text;
  for (const auto& [name, value] : options.template_arguments.items()) {
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
      return FieldError("chat_template_kwargs", absl::StrCat("may not set `", name, "`"));
    }
    context[name] = value;
  }
  absl::StatusOr<std::string> text = template_->Render(context);
  if (!text.ok()) return NameField(text.status(), "messages");
  return text;
}

absl::StatusOr<PreparedChat> ChatFormat::Prepare(const std::vector<ChatMessage>& messages,
                                                 const ChatOptions& options,
                                                 const std::optional<GrammarSpec>& format) const {
  const bool has_tools = options.tools.is_array() && !options.tools.empty();
  const bool with_tools = has_tools && options.tool_choice != ChatOptions::ToolChoice::kNone;
  PreparedChat chat;
  if (template_has_tools_) {
    DT_ASSIGN_OR_RETURN(chat.prompt, Render(messages, options, with_tools));
  } else {
    DT_ASSIGN_OR_RETURN(chat.prompt,
                        Render(WithToolsAsText(messages, with_tools ? options.tools : Json(),
                                               absl::StrContains(options_.source, "tool_calls")),
                               options, false));
  }
  if (with_tools && dialect_ == nullptr) {
    return FieldError("tools",
                      "cannot be used: it is not known how this model calls tools; see "
                      "`--tool-parser`");
  }
  const bool harmony = dialect_ != nullptr && dialect_->style == CallStyle::kHarmony;
  const absl::string_view end = absl::StripTrailingAsciiWhitespace(chat.prompt);
  chat.parser.thinks = thinks_;
  chat.parser.starts_in_thought = thinks_ && absl::EndsWith(end, kThinkBegin);
  if (with_tools || harmony) chat.parser.dialect = dialect_;
  chat.has_parser = thinks_ || with_tools || harmony;

  const Functions functions = with_tools ? ReadFunctions(options) : Functions();
  chat.parser.string_arguments = functions.string_arguments;
  const Thoughts thoughts = chat.parser.starts_in_thought ? Thoughts::kOpen
                            : thinks_                     ? Thoughts::kMayBegin
                                                          : Thoughts::kNone;
  const bool required = options.tool_choice == ChatOptions::ToolChoice::kRequired;
  if (with_tools) {
    Json answer = CallsFormat({.dialect = dialect_,
                               .functions = functions.callable,
                               .required = required || format.has_value(),
                               .parallel = options.parallel_tool_calls});
    if (format.has_value() && !required) {
      answer = {{"type", "or"}, {"elements", Json::array({answer, FormatJson(*format)})}};
    }
    chat.grammar = {GrammarKind::kStructuralTag,
                    StructuralTag(std::move(answer), harmony ? Thoughts::kNone : thoughts),
                    "tools"};
  } else if (format.has_value() && thoughts != Thoughts::kNone && !harmony) {
    chat.grammar = {GrammarKind::kStructuralTag, StructuralTag(FormatJson(*format), thoughts),
                    format->field};
  } else {
    chat.grammar = format;
  }
  return chat;
}

}  // namespace dovetail::coordinator
