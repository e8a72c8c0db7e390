#include "coordinator/http/openai_tools.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxNameBytes = 64;

MaybeError Required(absl::string_view name) {
  return InvalidField(name, absl::StrCat("`", name, "` is required"));
}

// The string `key` of `object`, which must be there.
MaybeError ReadRequired(const Json& object, const std::string& at, const char* key,
                        std::string* out) {
  const std::string name = absl::StrCat(at, ".", key);
  const Json* value = FindMember(object, key);
  if (value == nullptr) return Required(name);
  if (!value->is_string()) return WrongType(name, "a string", *value);
  *out = value->get<std::string>();
  return std::nullopt;
}

bool IsFunctionName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
         });
}

MaybeError ReadTool(const Json& tool, const std::string& at, std::string* function_name) {
  if (!tool.is_object()) return WrongType(at, "an object", tool);
  std::string type;
  if (MaybeError error = ReadRequired(tool, at, "type", &type)) return error;
  if (type != "function") {
    return UnsupportedField(absl::StrCat(at, ".type"),
                            absl::StrCat("`", at, ".type`: tools of type \"", type,
                                         "\" are not supported; use function"));
  }
  const std::string name = absl::StrCat(at, ".function");
  const Json* function = FindMember(tool, "function");
  if (function == nullptr) return Required(name);
  if (!function->is_object()) return WrongType(name, "an object", *function);
  if (MaybeError error = ReadRequired(*function, name, "name", function_name)) return error;
  if (!IsFunctionName(*function_name)) {
    return InvalidField(absl::StrCat(name, ".name"),
                        absl::StrCat("`", name, ".name` must have 1 to ", kMaxNameBytes,
                                     " letters, digits, dots, underscores or dashes"));
  }
  const Json* parameters = FindMember(*function, "parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return WrongType(absl::StrCat(name, ".parameters"), "an object", *parameters);
  }
  return std::nullopt;
}

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

MaybeError AllowFunction(const Json& choice, const std::string& at,
                         const std::vector<std::string>& names, ChatOptions* chat) {
  const Json* function = FindMember(choice, "function");
  if (function == nullptr || !function->is_object()) return Required(absl::StrCat(at, ".function"));
  std::string name;
  const std::string inner = absl::StrCat(at, ".function");
  if (MaybeError error = ReadRequired(*function, inner, "name", &name)) return error;
  if (!Has(names, name)) {
    return InvalidField("tool_choice", absl::StrCat("`tool_choice` names the function \"", name,
                                                    "\", which `tools` does not have"));
  }
  chat->allowed_tools.push_back(std::move(name));
  return std::nullopt;
}

MaybeError SetMode(absl::string_view mode, ChatOptions* chat) {
  if (mode == "auto") {
    chat->tool_choice = ChatOptions::ToolChoice::kAuto;
  } else if (mode == "none") {
    chat->tool_choice = ChatOptions::ToolChoice::kNone;
  } else if (mode == "required") {
    chat->tool_choice = ChatOptions::ToolChoice::kRequired;
  } else {
    return InvalidField("tool_choice", absl::StrCat("`tool_choice` is \"", mode,
                                                    "\"; use auto, none, required or a function"));
  }
  return std::nullopt;
}

// {"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[...]}}
MaybeError ReadAllowedTools(const Json& choice, const std::vector<std::string>& names,
                            ChatOptions* chat) {
  const Json* allowed = FindMember(choice, "allowed_tools");
  if (allowed == nullptr || !allowed->is_object()) return Required("tool_choice.allowed_tools");
  std::string mode = "auto";
  if (MaybeError error = ReadString(*allowed, "mode", &mode)) return error;
  if (MaybeError error = SetMode(mode, chat)) return error;
  const Json* tools = FindMember(*allowed, "tools");
  if (tools == nullptr || !tools->is_array() || tools->empty()) {
    return Required("tool_choice.allowed_tools.tools");
  }
  for (const Json& tool : *tools) {
    if (!tool.is_object()) return WrongType("tool_choice.allowed_tools.tools", "objects", tool);
    if (MaybeError error = AllowFunction(tool, "tool_choice.allowed_tools.tools", names, chat)) {
      return error;
    }
  }
  return std::nullopt;
}

MaybeError ReadToolChoice(const Json& body, const std::vector<std::string>& names,
                          ChatOptions* chat) {
  const Json* choice = FindMember(body, "tool_choice");
  if (choice == nullptr) return std::nullopt;
  if (choice->is_string()) {
    if (MaybeError error = SetMode(choice->get<std::string>(), chat)) return error;
  } else if (choice->is_object()) {
    std::string type;
    if (MaybeError error = ReadRequired(*choice, "tool_choice", "type", &type)) return error;
    if (type == "allowed_tools") {
      if (MaybeError error = ReadAllowedTools(*choice, names, chat)) return error;
    } else if (type == "function") {
      chat->tool_choice = ChatOptions::ToolChoice::kRequired;
      chat->parallel_tool_calls = false;
      if (MaybeError error = AllowFunction(*choice, "tool_choice", names, chat)) return error;
    } else {
      return UnsupportedField(
          "tool_choice", absl::StrCat("`tool_choice` of type \"", type, "\" is not supported"));
    }
  } else {
    return WrongType("tool_choice", "a string or an object", *choice);
  }
  if (chat->tool_choice == ChatOptions::ToolChoice::kRequired && names.empty()) {
    return InvalidField("tool_choice", "`tool_choice` asks for a call, but there are no `tools`");
  }
  return std::nullopt;
}

MaybeError ReadJsonSchema(const Json& value, absl::string_view field, GrammarSpec* spec) {
  if (!value.is_object() && !value.is_boolean()) return WrongType(field, "a JSON schema", value);
  spec->kind = GrammarKind::kJsonSchema;
  spec->source = value.dump();
  return std::nullopt;
}

MaybeError ReadResponseFormat(const Json& value, GrammarSpec* spec, bool* wanted) {
  if (!value.is_object()) return WrongType("response_format", "an object", value);
  std::string type;
  if (MaybeError error = ReadRequired(value, "response_format", "type", &type)) return error;
  *wanted = type != "text";
  spec->field = "response_format";
  if (type == "text") return std::nullopt;
  if (type == "json_object") {
    spec->kind = GrammarKind::kJsonObject;
    return std::nullopt;
  }
  if (type != "json_schema") {
    return UnsupportedField("response_format",
                            absl::StrCat("`response_format` of type \"", type,
                                         "\" is not supported; use text, json_object or "
                                         "json_schema"));
  }
  const Json* outer = FindMember(value, "json_schema");
  if (outer == nullptr) return Required("response_format.json_schema");
  if (!outer->is_object()) return WrongType("response_format.json_schema", "an object", *outer);
  const Json* schema = FindMember(*outer, "schema");
  if (schema == nullptr) return Required("response_format.json_schema.schema");
  return ReadJsonSchema(*schema, "response_format.json_schema.schema", spec);
}

// One of these texts.
MaybeError ReadChoices(const Json& value, absl::string_view field, GrammarSpec* spec) {
  if (!value.is_array() || value.empty() || value.size() > kMaxGuidedChoices) {
    return InvalidField(field, absl::StrCat("`", field, "` must be an array of 1 to ",
                                            kMaxGuidedChoices, " strings"));
  }
  std::string rule = "root ::= ";
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_string()) {
      return WrongType(absl::StrCat(field, "[", i, "]"), "a string", value[i]);
    }
    absl::StrAppend(&rule, i == 0 ? "" : " | ", value[i].dump());
  }
  spec->kind = GrammarKind::kEbnf;
  spec->source = std::move(rule);
  return std::nullopt;
}

MaybeError ReadSource(const Json& value, absl::string_view field, GrammarKind kind,
                      GrammarSpec* spec) {
  if (!value.is_string() || value.get_ref<const std::string&>().empty()) {
    return InvalidField(field, absl::StrCat("`", field, "` must be a string that is not empty"));
  }
  spec->kind = kind;
  spec->source = value.get<std::string>();
  return std::nullopt;
}

enum class Guide { kJson, kRegex, kChoice, kGrammar };

MaybeError ReadGuide(const Json& value, absl::string_view field, Guide guide, GrammarSpec* spec) {
  spec->field = std::string(field);
  switch (guide) {
    case Guide::kJson: {
      if (!value.is_string()) return ReadJsonSchema(value, field, spec);
      Json schema;
      if (MaybeError error = ParseJson(value.get<std::string>(), 32, &schema)) {
        return InvalidField(field, absl::StrCat("`", field, "`: ", error->message));
      }
      MaybeError error = ReadJsonSchema(schema, field, spec);
      spec->source = value.get<std::string>();
      return error;
    }
    case Guide::kRegex:
      return ReadSource(value, field, GrammarKind::kRegex, spec);
    case Guide::kChoice:
      return ReadChoices(value, field, spec);
    case Guide::kGrammar:
      break;
  }
  return ReadSource(value, field, GrammarKind::kEbnf, spec);
}

struct GuideField {
  const char* name;
  Guide guide;
};
constexpr GuideField kGuides[] = {
    {"guided_json", Guide::kJson},       {"json_schema", Guide::kJson},
    {"guided_regex", Guide::kRegex},     {"guided_choice", Guide::kChoice},
    {"guided_grammar", Guide::kGrammar}, {"grammar", Guide::kGrammar},
};
// Of `structured_outputs`.
constexpr GuideField kStructured[] = {{"json", Guide::kJson},
                                      {"regex", Guide::kRegex},
                                      {"choice", Guide::kChoice},
                                      {"grammar", Guide::kGrammar}};

}  // namespace

MaybeError ReadTemplateArguments(const Json& body, ChatOptions* chat) {
  chat->template_arguments = nlohmann::ordered_json::object();
  if (const Json* values = FindMember(body, "chat_template_kwargs"); values != nullptr) {
    if (!values->is_object()) return WrongType("chat_template_kwargs", "an object", *values);
    for (const auto& [name, value] : values->items()) {
      if (value.is_structured()) {
        return WrongType(absl::StrCat("chat_template_kwargs.", name),
                         "a string, a number or true or false", value);
      }
      chat->template_arguments[name] = nlohmann::ordered_json::parse(value.dump());
    }
  }
  std::string effort;
  if (MaybeError error = ReadString(body, "reasoning_effort", &effort)) return error;
  if (effort.empty()) return std::nullopt;
  chat->template_arguments["reasoning_effort"] = effort;
  if (effort == "none" && !chat->template_arguments.contains("enable_thinking")) {
    chat->template_arguments["enable_thinking"] = false;
  }
  return std::nullopt;
}

MaybeError ReadTools(const Json& body, ChatOptions* chat) {
  if (MaybeError error = ReadBool(body, "parallel_tool_calls", &chat->parallel_tool_calls)) {
    return error;
  }
  std::vector<std::string> names;
  if (const Json* tools = FindMember(body, "tools"); tools != nullptr) {
    if (!tools->is_array()) return WrongType("tools", "an array", *tools);
    if (tools->size() > kMaxTools) {
      return InvalidField("tools", absl::StrCat("`tools` may have at most ", kMaxTools,
                                                " tools, got ", tools->size()));
    }
    for (size_t i = 0; i < tools->size(); ++i) {
      std::string name;
      if (MaybeError error = ReadTool((*tools)[i], absl::StrCat("tools[", i, "]"), &name)) {
        return error;
      }
      if (Has(names, name)) {
        return InvalidField("tools", absl::StrCat("`tools` has two functions \"", name, "\""));
      }
      names.push_back(std::move(name));
    }
    if (!tools->empty()) chat->tools = nlohmann::ordered_json::parse(tools->dump());
  }
  return ReadToolChoice(body, names, chat);
}

void KeepMemberOrder(absl::string_view body, GenerationRequest* request) {
  const bool has_tools = request->chat.tools.is_array();
  const bool has_schema =
      request->format.has_value() && request->format->kind == GrammarKind::kJsonSchema;
  if (!has_tools && !has_schema) return;
  const auto whole =
      nlohmann::ordered_json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (!whole.is_object()) return;
  if (has_tools) request->chat.tools = whole.at("tools");
  if (!has_schema) return;
  const std::string& field = request->format->field;
  const nlohmann::ordered_json& schema =
      field == "response_format"           ? whole.at(field).at("json_schema").at("schema")
      : field == "structured_outputs.json" ? whole.at("structured_outputs").at("json")
                                           : whole.at(field);
  if (!schema.is_string()) request->format->source = schema.dump();
}

MaybeError ReadFormat(const Json& body, std::optional<GrammarSpec>* format) {
  int given = 0;
  GrammarSpec spec;
  if (const Json* value = FindMember(body, "response_format"); value != nullptr) {
    bool wanted = false;
    if (MaybeError error = ReadResponseFormat(*value, &spec, &wanted)) return error;
    given += wanted ? 1 : 0;
  }
  for (const GuideField& field : kGuides) {
    const Json* value = FindMember(body, field.name);
    if (value == nullptr || *value == "") continue;
    if (MaybeError error = ReadGuide(*value, field.name, field.guide, &spec)) return error;
    ++given;
  }
  if (const Json* outer = FindMember(body, "structured_outputs"); outer != nullptr) {
    if (!outer->is_object()) return WrongType("structured_outputs", "an object", *outer);
    for (const auto& [name, value] : outer->items()) {
      const auto* field =
          std::find_if(std::begin(kStructured), std::end(kStructured),
                       [&name = name](const GuideField& f) { return name == f.name; });
      if (value.is_null()) continue;
      const std::string full = absl::StrCat("structured_outputs.", name);
      if (field == std::end(kStructured)) {
        return UnsupportedField(full, absl::StrCat("`", full, "` is not supported"));
      }
      if (MaybeError error = ReadGuide(value, full, field->guide, &spec)) return error;
      ++given;
    }
  }
  if (given > 1) {
    return InvalidField(
        spec.field, absl::StrCat("`", spec.field, "` and another format cannot be had together"));
  }
  if (given == 1) *format = std::move(spec);
  return std::nullopt;
}

}  // namespace dovetail::coordinator
