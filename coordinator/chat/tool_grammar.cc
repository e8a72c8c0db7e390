#include "coordinator/chat/tool_grammar.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/chat/call_json.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// A run of spaces in JSON that no person would write; a small model would go on for ever.
constexpr int kMaxWhitespace = 64;

Json Schema(const ToolFunction& function, absl::string_view style) {
  Json json = {{"type", "json_schema"}, {"max_whitespace_cnt", kMaxWhitespace}};
  json["json_schema"] =
      function.parameters.is_object() ? function.parameters : Json{{"type", "object"}};
  if (!style.empty()) json["style"] = std::string(style);
  return json;
}

Json Tag(absl::string_view begin, Json content, absl::string_view end) {
  return {{"type", "tag"},
          {"begin", std::string(begin)},
          {"content", std::move(content)},
          {"end", std::string(end)}};
}

Json Sequence(std::vector<Json> elements) {
  return {{"type", "sequence"}, {"elements", std::move(elements)}};
}

Json Literal(absl::string_view text) {
  return {{"type", "const_string"}, {"value", std::string(text)}};
}

// One call, from its own mark to its end.
Json CallTag(const ChatDialect& d, const ToolFunction& function) {
  const std::string& name = function.name;
  switch (d.style) {
    case CallStyle::kNamedJson: {
      const std::string head =
          absl::StrCat("{\"name\": ", QuotedJson(name), ", \"", d.arguments_key, "\": ");
      const bool bare = d.call_begin.empty();
      return Tag(absl::StrCat(d.call_begin, bare ? "" : "\n", head), Schema(function, ""),
                 absl::StrCat("}", bare ? "" : "\n", d.call_end));
    }
    case CallStyle::kPlainJson:
      if (d.name == "kimi_k2") {
        return Tag(absl::StrCat(d.call_begin, d.name_prefix, name, ":"),
                   Sequence({{{"type", "regex"}, {"pattern", "[0-9]{1,4}"}},
                             Literal(d.name_end),
                             Schema(function, "")}),
                   d.call_end);
      }
      return Tag(absl::StrCat(d.call_begin, d.name_prefix, name, d.name_end), Schema(function, ""),
                 absl::StrCat(d.name == "deepseek_v3" ? "\n```" : "", d.call_end));
    case CallStyle::kXml:
      if (d.name == "glm45") {
        return Tag(absl::StrCat(d.call_begin, name, "\n"), Schema(function, d.xml_style),
                   d.call_end);
      }
      return Tag(absl::StrCat(d.call_begin, name, d.name_end, "\n"), Schema(function, d.xml_style),
                 absl::StrCat(d.name == "qwen3_coder" ? "\n" : "", d.call_end, "\n"));
    case CallStyle::kHarmony:
      return Tag(absl::StrCat("<|channel|>commentary to=functions.", name,
                              " <|constrain|>json<|message|>"),
                 Schema(function, ""), "<|call|>");
    case CallStyle::kNone:
      break;
  }
  return nullptr;
}

Json TagList(std::vector<Json> tags, absl::string_view separator, bool parallel) {
  return {{"type", "tags_with_separator"},
          {"tags", std::move(tags)},
          {"separator", std::string(separator)},
          {"at_least_one", true},
          {"stop_after_first", !parallel}};
}

// Sections of which each holds one or several calls.
std::vector<Json> SectionTags(const ToolGrammarOptions& options, std::vector<Json> calls) {
  const ChatDialect& d = *options.dialect;
  if (d.name == "mistral") {
    return {Tag(absl::StrCat(d.section_begin, "["),
                TagList(std::move(calls), ", ", options.parallel), "]")};
  }
  if (d.name == "qwen3_coder") {  // a section for each
    std::vector<Json> tags;
    for (Json& call : calls) {
      call["begin"] = absl::StrCat(d.section_begin, "\n", call["begin"].get<std::string>());
      call["end"] = absl::StrCat(call["end"].get<std::string>(), d.section_end);
      tags.push_back(std::move(call));
    }
    return tags;
  }
  const bool line = d.name == "minimax_m2";
  return {Tag(absl::StrCat(d.section_begin, line ? "\n" : ""),
              TagList(std::move(calls), d.name == "deepseek_v3" ? "\n" : "", options.parallel),
              d.section_end)};
}

// What announces a call in text.
absl::string_view Trigger(const ChatDialect& d) {
  if (!d.section_begin.empty()) return d.section_begin;
  if (!d.call_begin.empty()) return d.call_begin;
  return "{\"name\": ";
}

Json HarmonyFormat(const ToolGrammarOptions& options, std::vector<Json> calls) {
  const Json thoughts =
      Tag("<|channel|>analysis<|message|>", {{"type", "any_text"}}, "<|end|><|start|>assistant");
  Json call = TagList(std::move(calls), "<|start|>assistant", /*parallel=*/false);
  if (!options.required) {
    call = {{"type", "or"},
            {"elements",
             {std::move(call),
              Sequence({Literal("<|channel|>final<|message|>"), {{"type", "any_text"}}})}}};
  }
  return Sequence({{{"type", "optional"}, {"content", thoughts}}, std::move(call)});
}

}  // namespace

Json CallsFormat(const ToolGrammarOptions& options) {
  const ChatDialect& d = *options.dialect;
  if (d.style == CallStyle::kNone) return nullptr;
  std::vector<Json> calls;
  for (const ToolFunction& function : options.functions) calls.push_back(CallTag(d, function));
  if (d.style == CallStyle::kHarmony) return HarmonyFormat(options, std::move(calls));
  const bool sections = !d.section_begin.empty();
  std::vector<Json> tags = sections ? SectionTags(options, std::move(calls)) : std::move(calls);
  if (options.required) {
    const bool one = !options.parallel || (sections && d.name != "qwen3_coder");
    return TagList(std::move(tags), d.call_begin.empty() && !sections ? "; " : "\n", !one);
  }
  // A bare object is only looked for at the beginning: text that has one in its middle is text.
  if (d.call_begin.empty() && !sections) {
    return {{"type", "or"},
            {"elements",
             {TagList(std::move(tags), "; ", options.parallel),
              {{"type", "any_text"}, {"excludes", {std::string(Trigger(d))}}}}}};
  }
  return {{"type", "triggered_tags"},
          {"triggers", {std::string(Trigger(d))}},
          {"tags", std::move(tags)},
          {"stop_after_first", !options.parallel}};
}

std::string StructuralTag(Json format, Thoughts thoughts) {
  const Json any_text = {{"type", "any_text"}};
  const Json spaces = {{"type", "regex"}, {"pattern", "[\\n ]{0,4}"}};
  Json whole = std::move(format);
  if (thoughts == Thoughts::kOpen) {
    whole = Sequence({Tag("", any_text, kThinkEnd), spaces, std::move(whole)});
  } else if (thoughts == Thoughts::kMayBegin) {
    const Json block = Sequence({spaces, Tag(kThinkBegin, any_text, kThinkEnd), spaces});
    whole = Sequence({{{"type", "optional"}, {"content", block}}, std::move(whole)});
  }
  return Json{{"type", "structural_tag"}, {"format", std::move(whole)}}.dump(
      -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dovetail::coordinator
