#include "coordinator/generation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "coordinator/request_metrics.h"
#include "coordinator/stop_matcher.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;

absl::Status FieldError(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("`", field, "` ", problem));
}

// Puts the field's name in front of an InvalidArgument from below.
absl::Status NameField(const absl::Status& status, absl::string_view field) {
  if (status.code() != absl::StatusCode::kInvalidArgument) return status;
  return absl::InvalidArgumentError(absl::StrCat("`", field, "`: ", status.message()));
}

absl::Status CheckRange(absl::string_view field, const std::optional<float>& value, float lowest,
                        float highest, bool lowest_included) {
  if (!value.has_value()) return absl::OkStatus();
  const bool fits = *value <= highest && (lowest_included ? *value >= lowest : *value > lowest);
  if (fits) return absl::OkStatus();  // false for NaN
  return FieldError(field, absl::StrCat("must be ", lowest_included ? "at least " : "above ",
                                        lowest, " and at most ", highest, ", got ", *value));
}

absl::Status CheckStops(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStops) {
    return FieldError("stop",
                      absl::StrCat("may have at most ", kMaxStops, " strings, got ", stops.size()));
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) return FieldError("stop", "must not contain an empty string");
    if (stop.size() > kMaxStopBytes) {
      return FieldError("stop", absl::StrCat("strings may have at most ", kMaxStopBytes,
                                             " bytes, got one of ", stop.size()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> CheckSampling(const GenerationRequest& request) {
  DT_RETURN_IF_ERROR(CheckRange("temperature", request.temperature, 0, 2, true));
  DT_RETURN_IF_ERROR(CheckRange("top_p", request.top_p, 0, 1, false));
  DT_RETURN_IF_ERROR(CheckRange("min_p", request.min_p, 0, 1, true));
  const int64_t top_k = request.top_k.value_or(0);
  // -1 is how some clients say "off".
  if (top_k < -1 || top_k > INT32_MAX) {
    return FieldError("top_k", absl::StrCat("must be at least 0, got ", top_k));
  }
  SamplingParams sampling;
  sampling.temperature = request.temperature.value_or(1.0f);
  sampling.top_p = request.top_p.value_or(1.0f);
  sampling.min_p = request.min_p.value_or(0.0f);
  sampling.top_k = static_cast<int32_t>(std::max<int64_t>(0, top_k));
  if (request.seed.has_value()) {
    sampling.seed = *request.seed;
  } else {
    std::random_device entropy;
    sampling.seed = uint64_t{entropy()} << 32 | entropy();
  }
  return sampling;
}

// Turns the engine's tokens into events. On the engine's thread, except Attach().
class GenerationSink : public TokenSink {
 public:
  GenerationSink(const model::Tokenizer* tokenizer, Engine* engine,
                 std::shared_ptr<EventSink> events, const std::vector<std::string>& stops,
                 int prompt_tokens, uint64_t seed)
      : engine_(engine),
        has_text_(tokenizer->has_vocab()),
        detokenizer_(tokenizer, /*special=*/false, /*at_start=*/false),
        stops_(stops),
        events_(std::move(events)),
        seed_(seed) {
    usage_.prompt_tokens = prompt_tokens;
  }

  // The request's id is known. Tokens may have come before that.
  void Attach(RequestId id) {
    id_ = id;
    if (wants_cancel_) engine_->Cancel(id);
  }

  void OnToken(int32_t token) override {
    if (finished_) return;
    ++usage_.completion_tokens;
    GenerationEvent event = NewEvent();
    event.tokens.push_back(token);
    if (has_text_) event.text = stops_.Push(detokenizer_.Push(token));
    if (stops_.stopped()) {
      Finish(std::move(event), FinishReason::kStop);
      wants_cancel_ = true;
      if (const RequestId id = id_; id != 0) engine_->Cancel(id);
      return;
    }
    events_->OnEvent(event);
  }

  void OnFinish(FinishReason reason, const absl::Status& status,
                const RequestUsage& usage) override {
    if (finished_) return;
    usage_ = usage;
    GenerationEvent event = NewEvent();
    if (has_text_) {
      event.text = stops_.Push(detokenizer_.Finish());
      if (stops_.stopped()) {
        reason = FinishReason::kStop;
      } else {
        event.text += stops_.Finish();
      }
    }
    event.status = status;
    Finish(std::move(event), reason);
  }

 private:
  GenerationEvent NewEvent() const {
    GenerationEvent event;
    event.seed = seed_;
    event.usage = usage_;
    return event;
  }
  void Finish(GenerationEvent event, FinishReason reason) {
    finished_ = true;
    event.finished = true;
    event.reason = reason;
    event.usage = usage_;
    events_->OnEvent(event);
    events_.reset();
  }

  Engine* const engine_;
  const bool has_text_;
  model::StreamingDetokenizer detokenizer_;
  StopMatcher stops_;
  std::shared_ptr<EventSink> events_;
  const uint64_t seed_;
  RequestUsage usage_;
  bool finished_ = false;
  std::atomic<RequestId> id_{0};
  std::atomic<bool> wants_cancel_{false};
};

}  // namespace

struct GenerationService::Impl {
  std::string model_name;
  const model::ModelConfig* config;
  const model::Tokenizer* tokenizer;
  const model::ChatTemplate* chat_template;
  Engine* engine;
  int context_length;
  int max_new_tokens;
  std::atomic<bool> accepting{true};
  RequestMetrics* metrics = nullptr;

  absl::StatusOr<std::vector<int32_t>> Tokenize(const GenerationRequest& request) const;
  absl::StatusOr<std::vector<int32_t>> TokenizeChat(const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<int> MaxTokens(const GenerationRequest& request, size_t prompt_tokens,
                                absl::string_view field) const;
  std::string SpecialText(std::optional<model::TokenId> id) const {
    return id.has_value() ? tokenizer->TokenBytes(*id, /*special=*/true) : "";
  }
};

absl::StatusOr<std::vector<int32_t>> GenerationService::Impl::TokenizeChat(
    const std::vector<ChatMessage>& messages) const {
  if (chat_template == nullptr) {
    return FieldError("messages",
                      "cannot be used: the model's file has no chat template; use completions");
  }
  if (messages.empty()) return FieldError("messages", "must not be empty");
  nlohmann::ordered_json context;
  context["messages"] = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    context["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  const std::string bos = SpecialText(tokenizer->bos());
  context["add_generation_prompt"] = true;
  context["bos_token"] = bos;
  context["eos_token"] = SpecialText(tokenizer->eos());
  absl::StatusOr<std::string> text = chat_template->Render(context);
  if (!text.ok()) return NameField(text.status(), "messages");
  model::EncodeOptions options;
  options.parse_special = true;
  // Many templates write BOS themselves; two of them would change the answer.
  options.add_special = bos.empty() || !absl::StartsWith(*text, bos);
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->Encode(*text, options);
  if (!tokens.ok()) return NameField(tokens.status(), "messages");
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> GenerationService::Impl::Tokenize(
    const GenerationRequest& request) const {
  const auto* ids = std::get_if<std::vector<int32_t>>(&request.input);
  if (ids == nullptr && !tokenizer->has_vocab()) {
    return FieldError(std::holds_alternative<std::string>(request.input) ? "prompt" : "messages",
                      "cannot be used: the model's file has no vocabulary; give token ids");
  }
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&request.input)) {
    return TokenizeChat(*messages);
  }
  std::vector<int32_t> tokens;
  if (ids != nullptr) {
    tokens = *ids;
    for (int32_t id : tokens) {
      if (id >= 0 && id < config->vocab_size) continue;
      return FieldError("prompt",
                        absl::StrCat("has token id ", id, "; the vocabulary has ids 0 to ",
                                     config->vocab_size - 1));
    }
  } else {
    absl::StatusOr<std::vector<int32_t>> encoded =
        tokenizer->Encode(std::get<std::string>(request.input), model::EncodeOptions());
    if (!encoded.ok()) return NameField(encoded.status(), "prompt");
    tokens = *std::move(encoded);
  }
  if (tokens.empty()) return FieldError("prompt", "must not be empty");
  return tokens;
}

// What may be generated: what was asked for, the configured cap, and what is left of the context.
absl::StatusOr<int> GenerationService::Impl::MaxTokens(const GenerationRequest& request,
                                                       size_t prompt_tokens,
                                                       absl::string_view field) const {
  if (request.max_tokens.has_value() && *request.max_tokens < 1) {
    return FieldError("max_tokens", absl::StrCat("must be at least 1, got ", *request.max_tokens));
  }
  if (prompt_tokens >= static_cast<size_t>(context_length)) {
    return FieldError(
        field, absl::StrCat("is too long: this model's maximum context length is ", context_length,
                            " tokens; your prompt has ", prompt_tokens, " tokens"));
  }
  int64_t most = context_length - static_cast<int64_t>(prompt_tokens);
  if (max_new_tokens > 0) most = std::min<int64_t>(most, max_new_tokens);
  if (request.max_tokens.has_value()) most = std::min(most, *request.max_tokens);
  return static_cast<int>(most);
}

GenerationService::GenerationService(std::string model_name, const model::ModelConfig* config,
                                     const model::Tokenizer* tokenizer,
                                     const model::ChatTemplate* chat_template, Engine* engine,
                                     int context_length, int max_new_tokens)
    : impl_(std::make_shared<Impl>()) {
  impl_->model_name = std::move(model_name);
  impl_->config = config;
  impl_->tokenizer = tokenizer;
  impl_->chat_template = chat_template;
  impl_->engine = engine;
  impl_->context_length = context_length;
  impl_->max_new_tokens = max_new_tokens;
}

absl::StatusOr<RequestId> GenerationService::Start(const GenerationRequest& request,
                                                   std::shared_ptr<EventSink> sink) {
  if (impl_->metrics == nullptr) return Submit(request, std::move(sink));
  absl::StatusOr<RequestId> id =
      Submit(request, impl_->metrics->Watch(std::move(sink), absl::Now()));
  if (!id.ok()) impl_->metrics->AddRejected(id.status());
  return id;
}

absl::StatusOr<RequestId> GenerationService::Submit(const GenerationRequest& request,
                                                    std::shared_ptr<EventSink> sink) {
  if (!impl_->accepting) return absl::UnavailableError("the server is shutting down");
  const bool is_chat = std::holds_alternative<std::vector<ChatMessage>>(request.input);
  const absl::string_view field = is_chat ? "messages" : "prompt";
  EngineRequest engine_request;
  DT_ASSIGN_OR_RETURN(engine_request.sampling, CheckSampling(request));
  DT_RETURN_IF_ERROR(CheckStops(request.stop));
  if (request.max_tokens.has_value()) {  // before the work of tokenising
    DT_RETURN_IF_ERROR(impl_->MaxTokens(request, 0, field).status());
  }
  DT_ASSIGN_OR_RETURN(engine_request.prompt, impl_->Tokenize(request));
  DT_ASSIGN_OR_RETURN(engine_request.max_tokens,
                      impl_->MaxTokens(request, engine_request.prompt.size(), field));
  if (!request.ignore_eos) {
    const auto ends = impl_->tokenizer->end_of_generation();
    engine_request.end_tokens.assign(ends.begin(), ends.end());
  }
  engine_request.deadline = request.deadline;
  engine_request.tenant = request.tenant;

  auto tokens = std::make_shared<GenerationSink>(
      impl_->tokenizer, impl_->engine, std::move(sink), request.stop,
      static_cast<int>(engine_request.prompt.size()), engine_request.sampling.seed);
  absl::StatusOr<RequestId> id = impl_->engine->Submit(std::move(engine_request), tokens);
  if (!id.ok()) return NameField(id.status(), field);
  tokens->Attach(*id);
  return *id;
}

void GenerationService::Cancel(RequestId id) { impl_->engine->Cancel(id); }

absl::StatusOr<std::vector<int32_t>> GenerationService::Tokenize(
    const GenerationRequest& request) const {
  return impl_->Tokenize(request);
}

void GenerationService::set_metrics(RequestMetrics* metrics) { impl_->metrics = metrics; }

const std::string& GenerationService::model_name() const { return impl_->model_name; }
const model::ModelConfig& GenerationService::config() const { return *impl_->config; }
const model::Tokenizer& GenerationService::tokenizer() const { return *impl_->tokenizer; }
int GenerationService::context_length() const { return impl_->context_length; }

absl::Status GenerationService::CheckModel(const std::string& model) const {
  if (model.empty() || model == impl_->model_name) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("The model `", model, "` does not exist"));
}

void GenerationService::StopAccepting() { impl_->accepting = false; }

}  // namespace dovetail::coordinator
