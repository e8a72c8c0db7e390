#include "coordinator/chat/chat_dialect.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {
namespace {

constexpr ChatDialect kDialects[] = {
    // Hermes, Qwen 2.5 and 3, and what is written for a template that knows no tools.
    {.name = "hermes",
     .style = CallStyle::kNamedJson,
     .call_begin = "<tool_call>",
     .call_end = "</tool_call>"},
    {.name = "qwen3_coder",
     .style = CallStyle::kXml,
     .section_begin = "<tool_call>",
     .section_end = "</tool_call>",
     .call_begin = "<function=",
     .call_end = "</function>",
     .name_end = ">",
     .key_begin = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>",
     .xml_style = "qwen_xml"},
    // V3 and R1.
    {.name = "deepseek_v3",
     .style = CallStyle::kPlainJson,
     .section_begin = "<｜tool▁calls▁begin｜>",
     .section_end = "<｜tool▁calls▁end｜>",
     .call_begin = "<｜tool▁call▁begin｜>",
     .call_end = "<｜tool▁call▁end｜>",
     .name_prefix = "function<｜tool▁sep｜>",
     .name_end = "\n```json\n"},
    {.name = "deepseek_v31",
     .style = CallStyle::kPlainJson,
     .section_begin = "<｜tool▁calls▁begin｜>",
     .section_end = "<｜tool▁calls▁end｜>",
     .call_begin = "<｜tool▁call▁begin｜>",
     .call_end = "<｜tool▁call▁end｜>",
     .name_end = "<｜tool▁sep｜>"},
    {.name = "kimi_k2",
     .style = CallStyle::kPlainJson,
     .section_begin = "<|tool_calls_section_begin|>",
     .section_end = "<|tool_calls_section_end|>",
     .call_begin = "<|tool_call_begin|>",
     .call_end = "<|tool_call_end|>",
     .name_prefix = "functions.",
     .name_end = "<|tool_call_argument_begin|>"},
    {.name = "glm45",
     .style = CallStyle::kXml,
     .call_begin = "<tool_call>",
     .call_end = "</tool_call>",
     .name_end = "\n",
     .name_close = "<",
     .key_begin = "<arg_key>",
     .key_end = "</arg_key>",
     .value_begin = "<arg_value>",
     .value_end = "</arg_value>",
     .xml_style = "glm_xml"},
    {.name = "minimax_m2",
     .style = CallStyle::kXml,
     .section_begin = "<minimax:tool_call>",
     .section_end = "</minimax:tool_call>",
     .call_begin = "<invoke name=\"",
     .call_end = "</invoke>",
     .name_end = "\">",
     .key_begin = "<parameter name=\"",
     .key_end = "\">",
     .value_end = "</parameter>",
     .xml_style = "minimax_xml"},
    {.name = "llama3_json", .style = CallStyle::kNamedJson, .arguments_key = "parameters"},
    {.name = "mistral", .style = CallStyle::kNamedJson, .section_begin = "[TOOL_CALLS]"},
    {.name = "harmony", .style = CallStyle::kHarmony},
};

constexpr absl::string_view kHarmonyMarkers[] = {"<|channel|>", "<|message|>",   "<|start|>",
                                                 "<|end|>",     "<|constrain|>", "<|call|>",
                                                 "<|return|>"};

}  // namespace

const ChatDialect* FindDialect(absl::string_view name) {
  for (const ChatDialect& dialect : kDialects) {
    if (dialect.name == name) return &dialect;
  }
  return nullptr;
}

std::string DialectNames() {
  std::string names;
  for (const ChatDialect& dialect : kDialects) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", dialect.name);
  }
  return names;
}

const ChatDialect* DetectDialect(absl::string_view chat_template) {
  const auto has = [&](absl::string_view text) { return absl::StrContains(chat_template, text); };
  // From what one family alone writes to what several do.
  if (has("<|tool_calls_section_begin|>")) return FindDialect("kimi_k2");
  if (has("<｜tool▁calls▁begin｜>")) {
    return FindDialect(has("```json") ? "deepseek_v3" : "deepseek_v31");
  }
  if (has("<minimax:tool_call>")) return FindDialect("minimax_m2");
  if (has("<|channel|>")) return FindDialect("harmony");
  if (has("<arg_key>")) return FindDialect("glm45");
  if (has("<function=")) return FindDialect("qwen3_coder");
  if (has("<tool_call>")) return FindDialect("hermes");
  if (has("[TOOL_CALLS]")) return FindDialect("mistral");
  if (has("<|python_tag|>") || (has("tools") && has("\"parameters\"")))
    return FindDialect("llama3_json");
  return nullptr;
}

bool TemplateThinks(absl::string_view chat_template) {
  return absl::StrContains(chat_template, kThinkBegin) ||
         absl::StrContains(chat_template, kThinkEnd);
}

std::vector<std::string> DialectMarkers() {
  std::vector<std::string> markers = {std::string(kThinkBegin), std::string(kThinkEnd),
                                      "<｜tool▁sep｜>", "<|python_tag|>"};
  for (const ChatDialect& d : kDialects) {
    for (absl::string_view mark :
         {d.section_begin, d.section_end, d.call_begin, d.call_end, d.name_end, d.key_begin,
          d.key_end, d.value_begin, d.value_end}) {
      if (mark.size() > 2) markers.emplace_back(mark);
    }
  }
  for (absl::string_view mark : kHarmonyMarkers) markers.emplace_back(mark);
  return markers;
}

}  // namespace dovetail::coordinator
