#include "coordinator/http/openai_fields.h"

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

enum Where { kBoth, kChatOnly, kCompletionOnly };

struct HonouredField {
  absl::string_view name;
  Where where;
};

constexpr HonouredField kHonoured[] = {
    {"model", kBoth},
    {"messages", kChatOnly},
    {"prompt", kCompletionOnly},
    {"temperature", kBoth},
    {"top_p", kBoth},
    {"top_k", kBoth},
    {"min_p", kBoth},
    {"seed", kBoth},
    {"stop", kBoth},
    {"max_tokens", kBoth},
    {"max_completion_tokens", kChatOnly},
    {"stream", kBoth},
    {"stream_options", kBoth},
    {"ignore_eos", kBoth},
    {"n", kBoth},
    {"best_of", kCompletionOnly},
    {"logprobs", kBoth},
    {"top_logprobs", kChatOnly},
    {"logit_bias", kBoth},
    {"presence_penalty", kBoth},
    {"frequency_penalty", kBoth},
    {"repetition_penalty", kBoth},
    {"repeat_penalty", kBoth},
    {"min_tokens", kBoth},
    {"stop_token_ids", kBoth},
    {"echo", kCompletionOnly},
    {"cache_salt", kBoth},
    {"priority", kBoth},
    {"response_format", kBoth},
    {"tools", kChatOnly},
    {"tool_choice", kChatOnly},
    {"parallel_tool_calls", kChatOnly},
    {"reasoning_effort", kChatOnly},
    {"chat_template_kwargs", kChatOnly},
    {"grammar", kBoth},
    {"json_schema", kBoth},
    {"guided_json", kBoth},
    {"guided_regex", kBoth},
    {"guided_choice", kBoth},
    {"guided_grammar", kBoth},
    {"structured_outputs", kBoth},
};

constexpr absl::string_view kIgnored[] = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
};

// `harmless`: values, as JSON and split by spaces, that ask for what happens anyway.
struct RefusedField {
  absl::string_view name;
  Where where;
  absl::string_view harmless;
};

constexpr RefusedField kRefused[] = {
    // OpenAI's own.
    {"functions", kChatOnly, "[]"},
    {"function_call", kChatOnly, R"("none" "auto")"},
    {"suffix", kCompletionOnly, R"("")"},
    {"audio", kChatOnly, ""},
    {"modalities", kChatOnly, R"(["text"])"},
    {"prediction", kChatOnly, ""},
    {"verbosity", kChatOnly, ""},
    {"web_search_options", kChatOnly, ""},
    {"moderation", kChatOnly, ""},
    // What other servers added.
    {"include_stop_str_in_output", kBoth, "false"},
    {"typical_p", kBoth, "1"},
    {"length_penalty", kBoth, "1"},
    {"use_beam_search", kBoth, "false"},
    {"dry_multiplier", kBoth, "0"},
    {"xtc_probability", kBoth, "0"},
    {"mirostat", kBoth, "0"},
    {"prompt_logprobs", kBoth, "0"},
    {"return_token_ids", kBoth, "false"},
    {"return_tokens_as_token_ids", kBoth, "false"},
    {"truncate_prompt_tokens", kBoth, ""},
    {"skip_special_tokens", kBoth, "true"},
    {"spaces_between_special_tokens", kBoth, "true"},
    {"add_special_tokens", kBoth, ""},
    {"add_generation_prompt", kChatOnly, "true"},
    {"continue_final_message", kChatOnly, "false"},
    {"chat_template", kChatOnly, ""},
    {"documents", kChatOnly, "[]"},
};

bool Applies(Where where, OpenAiEndpoint endpoint) {
  return where == kBoth || (where == kChatOnly) == (endpoint == OpenAiEndpoint::kChat);
}

const RefusedField* FindRefused(OpenAiEndpoint endpoint, absl::string_view field) {
  for (const RefusedField& entry : kRefused) {
    if (entry.name == field && Applies(entry.where, endpoint)) return &entry;
  }
  return nullptr;
}

}  // namespace

FieldFate FateOf(OpenAiEndpoint endpoint, absl::string_view field) {
  for (const HonouredField& entry : kHonoured) {
    if (entry.name == field && Applies(entry.where, endpoint)) return FieldFate::kHonoured;
  }
  if (absl::c_linear_search(kIgnored, field)) return FieldFate::kIgnored;
  if (FindRefused(endpoint, field) != nullptr) return FieldFate::kRefused;
  return FieldFate::kUnknown;
}

std::optional<ApiError> RefuseUnlessHarmless(OpenAiEndpoint endpoint, absl::string_view field,
                                             const nlohmann::json& value) {
  const RefusedField* entry = FindRefused(endpoint, field);
  if (entry == nullptr || value.is_null()) return std::nullopt;
  for (absl::string_view text : absl::StrSplit(entry->harmless, ' ', absl::SkipEmpty())) {
    if (value == nlohmann::json::parse(text.begin(), text.end())) return std::nullopt;
  }
  std::string message = absl::StrCat("`", field, "` is not supported; leave it out");
  if (!entry->harmless.empty()) {
    absl::StrAppend(&message, " or set it to ",
                    absl::string_view(*absl::StrSplit(entry->harmless, ' ').begin()));
  }
  return UnsupportedField(field, message);
}

bool UnknownFieldLog::ShouldLog(absl::string_view field) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (names_.size() >= kMaxNames) return false;
  return names_.emplace(field).second;
}

}  // namespace dovetail::coordinator
