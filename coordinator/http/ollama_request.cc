#include "coordinator/http/ollama_request.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

// Translated below, in chats and in completions.
constexpr const char* kKnown[] = {"model",  "messages", "prompt",   "system",
                                  "stream", "raw",      "options",  "format",
                                  "tools",  "think",    "logprobs", "top_logprobs"};
// They say nothing about the answer: the model stays loaded here.
constexpr const char* kIgnored[] = {"keep_alive", "truncate", "shift"};
// Refused, unless empty.
constexpr const char* kRefused[] = {"suffix", "images", "template", "context",
                                    "width",  "height", "steps",    "_debug_render_only"};

// Options with a namesake or a translation in OpenAI's requests, as our server takes those.
constexpr std::pair<const char*, const char*> kOptions[] = {
    {"temperature", "temperature"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"top_k", "top_k"},
    {"seed", "seed"},
    {"stop", "stop"},
    {"presence_penalty", "presence_penalty"},
    {"frequency_penalty", "frequency_penalty"},
    {"repeat_penalty", "repetition_penalty"},
};
// They say how to compute, which the plan decides here.
constexpr const char* kIgnoredOptions[] = {
    "numa",         "num_batch",    "num_gpu",        "main_gpu",
    "low_vram",     "f16_kv",       "use_mmap",       "use_mlock",
    "num_thread",   "num_keep",     "embedding_only", "vocab_only",
    "logits_all",   "mirostat_tau", "mirostat_eta",   "penalize_newline",
    "repeat_last_n"};
// The only value of each that asks for nothing.
constexpr std::pair<const char*, double> kNeutralOptions[] = {
    {"mirostat", 0}, {"typical_p", 1}, {"tfs_z", 1}};

template <size_t N>
bool IsIn(const char* const (&names)[N], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

ApiError Unsupported(const std::string& name) {
  return UnsupportedField(name, absl::StrCat("`", name, "` is not supported; leave it out"));
}

bool AsksForNothing(const Json& value) {
  return value.is_null() || value == false || value == "" || value == 0 ||
         ((value.is_array() || value.is_object()) && value.empty());
}

MaybeError SortFields(const Json& body, std::vector<std::string>* unknown) {
  for (const auto& [name, value] : body.items()) {
    if (IsIn(kKnown, name) || IsIn(kIgnored, name)) continue;
    if (!IsIn(kRefused, name)) {
      unknown->push_back(name);
    } else if (!AsksForNothing(value)) {
      return Unsupported(name);
    }
  }
  return std::nullopt;
}

// -1: until the end; -2: until the context is full, which is where it ends here anyway.
MaybeError TranslateNumPredict(const Json& options, Json* openai) {
  std::optional<int64_t> limit;
  if (MaybeError error = ReadInt(options, "num_predict", &limit)) return error;
  if (!limit.has_value() || *limit == -1 || *limit == -2) return std::nullopt;
  if (*limit < 1) {
    return InvalidField("num_predict", absl::StrCat("`num_predict` must be at least 1, or -1 for "
                                                    "no limit, got ",
                                                    *limit));
  }
  (*openai)["max_tokens"] = *limit;
  return std::nullopt;
}

MaybeError CheckNumCtx(const Json& options, int context_length) {
  std::optional<int64_t> wanted;
  if (MaybeError error = ReadInt(options, "num_ctx", &wanted)) return error;
  if (!wanted.has_value() || *wanted <= context_length) return std::nullopt;
  return InvalidField("num_ctx",
                      absl::StrCat("`num_ctx` is ", *wanted, "; this server's context length is ",
                                   context_length, " tokens"));
}

MaybeError TranslateOptions(const Json& body, int context_length, Json* openai,
                            std::vector<std::string>* unknown) {
  const Json* options = FindMember(body, "options");
  if (options == nullptr) return std::nullopt;
  if (!options->is_object()) return WrongType("options", "an object", *options);
  for (const auto& [name, value] : options->items()) {
    const auto same = [&name = name](const auto& entry) { return name == entry.first; };
    const auto* option = std::find_if(std::begin(kOptions), std::end(kOptions), same);
    const auto* neutral =
        std::find_if(std::begin(kNeutralOptions), std::end(kNeutralOptions), same);
    if (option != std::end(kOptions)) {
      if (!value.is_null()) (*openai)[option->second] = value;
    } else if (neutral != std::end(kNeutralOptions)) {
      const bool asks = !value.is_null() && !(value.is_number() && value == neutral->second);
      if (asks) return Unsupported(name);
    } else if (name != "num_predict" && name != "num_ctx" && !IsIn(kIgnoredOptions, name)) {
      unknown->push_back(name);
    }
  }
  if (MaybeError error = CheckNumCtx(*options, context_length)) return error;
  return TranslateNumPredict(*options, openai);
}

// "json", or a schema.
MaybeError TranslateFormat(const Json& body, Json* openai) {
  const Json* format = FindMember(body, "format");
  if (format == nullptr || *format == "") return std::nullopt;
  if (*format == "json") {
    (*openai)["response_format"] = {{"type", "json_object"}};
  } else if (format->is_object()) {
    (*openai)["response_format"] = {
        {"type", "json_schema"},
        {"json_schema", {{"name", "answer"}, {"schema", *format}, {"strict", true}}}};
  } else {
    return InvalidField("format", "`format` must be \"json\" or a JSON schema");
  }
  return std::nullopt;
}

// A call of a tool in an earlier answer: Ollama's have no id, and their arguments are an object.
MaybeError TranslateToolCalls(const Json& calls, const std::string& at, size_t number,
                              Json* message) {
  if (!calls.is_array()) return WrongType(at, "an array", calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const Json* function = calls[i].is_object() ? FindMember(calls[i], "function") : nullptr;
    if (function == nullptr || !function->is_object()) {
      return InvalidField(at, absl::StrCat("`", at, "[", i, "].function` must be an object"));
    }
    Json translated = {{"id", absl::StrCat("call_", number, "_", i)},
                       {"type", "function"},
                       {"function", *function}};
    Json& arguments = translated["function"]["arguments"];
    arguments =
        arguments.is_string() ? arguments : Json(arguments.is_null() ? "{}" : arguments.dump());
    (*message)["tool_calls"].push_back(std::move(translated));
  }
  return std::nullopt;
}

MaybeError TranslateMessages(const Json& given, Json* openai) {
  if (!given.is_array()) return WrongType("messages", "an array", given);
  Json messages = Json::array();
  std::string last_call;
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string at = absl::StrCat("messages[", i, "]");
    if (!given[i].is_object()) return WrongType(at, "an object", given[i]);
    const Json* images = FindMember(given[i], "images");
    if (images != nullptr && !AsksForNothing(*images)) return Unsupported(at + ".images");
    Json message = Json::object();
    for (const char* name : {"role", "content"}) {
      if (const auto value = given[i].find(name); value != given[i].end()) message[name] = *value;
    }
    if (message.count("content") == 0 || message["content"].is_null()) message["content"] = "";
    if (const Json* calls = FindMember(given[i], "tool_calls"); calls && !calls->empty()) {
      if (MaybeError error = TranslateToolCalls(*calls, at + ".tool_calls", i, &message)) {
        return error;
      }
      last_call = message["tool_calls"][0]["id"].get<std::string>();
    }
    if (message.value("role", Json()) == "tool") message["tool_call_id"] = last_call;
    messages.push_back(std::move(message));
  }
  (*openai)["messages"] = std::move(messages);
  return std::nullopt;
}

MaybeError TranslatePrompt(const Json& body, Json* openai, OllamaTranslation* translation) {
  std::string prompt, system;
  bool raw = false;
  if (MaybeError error = ReadString(body, "prompt", &prompt)) return error;
  if (MaybeError error = ReadString(body, "system", &system)) return error;
  if (MaybeError error = ReadBool(body, "raw", &raw)) return error;
  translation->only_loads = prompt.empty();
  if (raw) {
    translation->endpoint = OpenAiEndpoint::kCompletion;
    (*openai)["prompt"] = prompt;
    // A completion ends after 16 tokens unless it is told otherwise.
    if (openai->count("max_tokens") == 0) (*openai)["max_tokens"] = INT32_MAX;
    return std::nullopt;
  }
  (*openai)["messages"] = Json::array();
  if (!system.empty()) {
    (*openai)["messages"].push_back({{"role", "system"}, {"content", system}});
  }
  (*openai)["messages"].push_back({{"role", "user"}, {"content", prompt}});
  return std::nullopt;
}

MaybeError TranslateCommon(const Json& body, Json* openai) {
  std::string model;
  if (MaybeError error = ReadString(body, "model", &model)) return error;
  if (model.empty()) return InvalidField("model", "`model` is required");
  (*openai)["model"] = WithoutLatestTag(std::move(model));
  bool stream = true;  // unlike OpenAI's
  if (MaybeError error = ReadBool(body, "stream", &stream)) return error;
  (*openai)["stream"] = stream;
  const Json* think = FindMember(body, "think");
  if (think != nullptr && *think != false) return Unsupported("think");
  for (const char* name : {"logprobs", "top_logprobs"}) {
    if (const Json* value = FindMember(body, name); value && !AsksForNothing(*value)) {
      return Unsupported(name);
    }
  }
  if (const Json* tools = FindMember(body, "tools"); tools && !AsksForNothing(*tools)) {
    (*openai)["tools"] = *tools;
  }
  return TranslateFormat(body, openai);
}

}  // namespace

MaybeError TranslateOllamaRequest(OllamaEndpoint endpoint, const Json& body, int context_length,
                                  Json* openai, OllamaTranslation* translation) {
  *openai = Json::object();
  if (MaybeError error = SortFields(body, &translation->unknown_fields)) return error;
  if (MaybeError error = TranslateCommon(body, openai)) return error;
  if (MaybeError error =
          TranslateOptions(body, context_length, openai, &translation->unknown_fields)) {
    return error;
  }
  if (endpoint == OllamaEndpoint::kGenerate) return TranslatePrompt(body, openai, translation);
  const Json* messages = FindMember(body, "messages");
  translation->only_loads = messages == nullptr || (messages->is_array() && messages->empty());
  return translation->only_loads ? std::nullopt : TranslateMessages(*messages, openai);
}

std::string WithoutLatestTag(std::string model) {
  return std::string(absl::StripSuffix(model, ":latest"));
}

ApiError InOllamaWords(ApiError error) {
  error.message = absl::StrReplaceAll(error.message, {{"`max_tokens`", "`num_predict`"},
                                                      {"`repetition_penalty`", "`repeat_penalty`"},
                                                      {"`response_format`", "`format`"}});
  return error;
}

}  // namespace dovetail::coordinator
