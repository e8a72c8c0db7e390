// GenerationRequest and GenerationEvent: what every API dialect asks for, and what it encodes.
//
// Plain data. The ranges of sampling fields are checked in one place, CheckSampling(), whatever
// dialect they came in.
#ifndef DOVETAIL_COORDINATOR_GENERATION_REQUEST_H_
#define DOVETAIL_COORDINATOR_GENERATION_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/grammar/grammar_service.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {

struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // text of a JSON object
};

struct ChatMessage {
  std::string role;
  std::string content;
  std::vector<ChatToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = "";              // of a tool: which call it answers
  std::string name = "";
  std::string reasoning = "";  // of an assistant: what it thought
};

// How a chat's prompt is written and its answer read.
struct ChatOptions {
  enum class ToolChoice { kAuto, kNone, kRequired };
  nlohmann::ordered_json tools;  // as in OpenAI's API: [{type, function: {name, parameters}}]
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::vector<std::string> allowed_tools;  // those that may be called; empty: all
  bool parallel_tool_calls = true;
  nlohmann::ordered_json template_arguments;  // an object: further names for the template
};

struct GenerationRequest {
  // Text (completed as it is, special tokens not parsed), token ids, or chat messages.
  std::variant<std::string, std::vector<int32_t>, std::vector<ChatMessage>> input;
  std::optional<float> temperature, top_p, min_p;  // checked: InvalidArgument names the field
  std::optional<float> presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<int64_t> top_k;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id and -100 to 100
  std::optional<uint64_t> seed;         // default: random, reported in the first event
  uint32_t choice = 0;                  // among the n of one prompt: each draws its own numbers
  std::optional<int64_t> min_tokens;    // before these no end token is drawn
  std::optional<int64_t> max_tokens;    // default: until the context ends; 0 only with `echo`
  std::vector<std::string> stop;        // at most 16, none empty
  std::vector<int32_t> stop_token_ids;  // at most 16; end the generation as its end token does
  bool ignore_eos = false;
  bool echo = false;                  // the prompt comes first, with its logprobs if there are any
  ChatOptions chat;                   // of messages
  std::optional<GrammarSpec> format;  // what the answer must look like
  std::optional<int64_t> logprobs;    // of every token, and this many others (0 to 20)
  std::string cache_salt;             // equal beginnings are shared within one salt alone
  std::optional<int64_t> priority;    // -100 to 100, the lower number first; default: 0
  absl::Time deadline = absl::InfiniteFuture();
  std::string tenant;  // the name of the API key; "" where none is needed
};

// A token as logprobs show it.
struct TokenDetail {
  std::string bytes;             // of special tokens their name
  bool in_text = false;          // the bytes are part of the text: it is no special token
  std::optional<float> logprob;  // none for the first token of an echoed prompt
  std::vector<std::pair<std::string, float>> top;  // most likely first
};

// A piece of a call of a tool. Its first piece has id and name, the others add arguments.
struct ToolCallDelta {
  int index = 0;  // among the calls of the answer, ascending
  std::string id;
  std::string name;
  std::string arguments;  // text of a JSON object
};

// What is added to an answer, or the whole of one.
struct AnswerDelta {
  std::string text;
  std::string reasoning;  // of chats: what was thought before the answer
  std::vector<ToolCallDelta> tool_calls;
  std::vector<TokenDetail> details;  // of the tokens; with GenerationRequest::logprobs

  bool empty() const {
    return text.empty() && reasoning.empty() && tool_calls.empty() && details.empty();
  }
  void Add(const AnswerDelta& delta);
};

struct GenerationEvent : AnswerDelta {
  std::vector<int32_t> tokens;
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
  std::string stop;     // of kStop: the stop string that was found; "": there was none
  absl::Status status;  // of kError and kCancelled
  RequestUsage usage;   // in the first (prompt_tokens) and the last event
  uint64_t seed = 0;
};

// Called on the engine's thread; must not block.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnEvent(const GenerationEvent& event) = 0;
};

// Checks everything of a request that needs neither tokenizer nor context and puts it into
// `engine`. InvalidArgument about a field begins with its name in backticks.
absl::Status CheckRequest(const GenerationRequest& request, int vocab_size, EngineRequest* engine);

// "`field` problem" as InvalidArgument.
absl::Status FieldError(absl::string_view field, absl::string_view problem);
// Puts the field's name in front of an InvalidArgument from below.
absl::Status NameField(const absl::Status& status, absl::string_view field);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GENERATION_REQUEST_H_
