#include "coordinator/generation.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/generation_sink.h"
#include "coordinator/request_metrics.h"

namespace dovetail::coordinator {
namespace {

// What a request becomes before it goes to the engine.
struct Prepared {
  EngineRequest engine;
  GenerationSink::Options sink;
  std::optional<GrammarSpec> grammar;
  std::string field;  // of the input
};

std::string NewCallId() {
  std::random_device entropy;
  const uint64_t high = uint64_t{entropy()} << 32 | entropy();
  const uint64_t low = uint64_t{entropy()} << 32 | entropy();
  return absl::StrCat("call_", absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad8));
}

bool IsChat(const GenerationRequest& request) {
  return std::holds_alternative<std::vector<ChatMessage>>(request.input);
}

}  // namespace

struct GenerationService::Impl {
  std::string model_name;
  const model::ModelConfig* config;
  const model::Tokenizer* tokenizer;
  std::unique_ptr<ChatFormat> chat;  // null: no chat
  std::vector<int32_t> marker_ids;   // special tokens that parsers of answers must see
  Engine* engine;
  int context_length;
  int max_new_tokens;
  std::string bos_text;
  std::atomic<bool> accepting{true};
  RequestMetrics* metrics = nullptr;

  std::once_flag grammars_made;
  std::unique_ptr<GrammarService> grammars;  // made with the first request that wants one

  absl::StatusOr<std::shared_ptr<Prepared>> Prepare(const GenerationRequest& request);
  absl::StatusOr<std::vector<int32_t>> Tokenize(const GenerationRequest& request,
                                                const std::string& chat_prompt) const;
  absl::StatusOr<std::string> PrepareChat(const GenerationRequest& request, Prepared* prepared);
  absl::StatusOr<int> MaxTokens(const GenerationRequest& request, size_t prompt_tokens,
                                absl::string_view field) const;
  GrammarService& Grammars();
  absl::StatusOr<RequestId> Submit(Prepared* prepared, std::shared_ptr<EventSink> sink);
  std::string SpecialText(std::optional<model::TokenId> id) const {
    return id.has_value() ? tokenizer->TokenBytes(*id, /*special=*/true) : "";
  }
};

GenerationService::GenerationService(std::string model_name, const model::ModelConfig* config,
                                     const model::Tokenizer* tokenizer,
                                     const model::ChatTemplate* chat_template, Engine* engine,
                                     int context_length, int max_new_tokens,
                                     const ChatFormatOptions& parsers)
    : impl_(std::make_shared<Impl>()) {
  impl_->model_name = std::move(model_name);
  impl_->config = config;
  impl_->tokenizer = tokenizer;
  impl_->engine = engine;
  impl_->context_length = context_length;
  impl_->max_new_tokens = max_new_tokens;
  impl_->bos_text = impl_->SpecialText(tokenizer->bos());
  if (chat_template == nullptr) return;
  ChatFormatOptions options = parsers;
  options.source = chat_template->source();
  options.bos_text = impl_->bos_text;
  options.eos_text = impl_->SpecialText(tokenizer->eos());
  auto chat = ChatFormat::Create(chat_template, options);
  DT_CHECK(chat.ok());  // the names of parsers were checked with the configuration
  impl_->chat = *std::move(chat);
  for (const std::string& marker : DialectMarkers()) {
    const auto id = tokenizer->FindToken(marker);
    if (id.has_value() && tokenizer->IsSpecial(*id)) impl_->marker_ids.push_back(*id);
  }
}

GenerationService::~GenerationService() {
  StopAccepting();
  impl_->grammars.reset();  // its threads may hold the rest
}

GrammarService& GenerationService::Impl::Grammars() {
  std::call_once(grammars_made, [this] {
    grammars = std::make_unique<GrammarService>(tokenizer, config->vocab_size, DialectMarkers());
  });
  return *grammars;
}

absl::StatusOr<std::string> GenerationService::Impl::PrepareChat(const GenerationRequest& request,
                                                                 Prepared* prepared) {
  const auto& messages = std::get<std::vector<ChatMessage>>(request.input);
  if (chat == nullptr) {
    return FieldError("messages",
                      "cannot be used: the model's file has no chat template; use completions");
  }
  if (messages.empty()) return FieldError("messages", "must not be empty");
  DT_ASSIGN_OR_RETURN(PreparedChat made, chat->Prepare(messages, request.chat, request.format));
  prepared->grammar = std::move(made.grammar);
  if (made.has_parser) {
    prepared->sink.parser = std::move(made.parser);
    prepared->sink.parser->new_id = NewCallId;
    prepared->sink.marker_ids = marker_ids;
  }
  return std::move(made.prompt);
}

absl::StatusOr<std::vector<int32_t>> GenerationService::Impl::Tokenize(
    const GenerationRequest& request, const std::string& chat_prompt) const {
  std::vector<int32_t> tokens;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.input)) {
    tokens = *ids;
    for (int32_t id : tokens) {
      if (id >= 0 && id < config->vocab_size) continue;
      return FieldError("prompt",
                        absl::StrCat("has token id ", id, "; the vocabulary has ids 0 to ",
                                     config->vocab_size - 1));
    }
  } else {
    const bool is_chat = IsChat(request);
    const std::string& text = is_chat ? chat_prompt : std::get<std::string>(request.input);
    model::EncodeOptions options;
    options.parse_special = is_chat;
    // Many templates write BOS themselves; two of them would change the answer.
    options.add_special = !is_chat || bos_text.empty() || !absl::StartsWith(text, bos_text);
    absl::StatusOr<std::vector<int32_t>> encoded = tokenizer->Encode(text, options);
    if (!encoded.ok()) return NameField(encoded.status(), is_chat ? "messages" : "prompt");
    tokens = *std::move(encoded);
  }
  if (tokens.empty()) return FieldError("prompt", "must not be empty");
  return tokens;
}

// What may be generated: what was asked for, the configured cap, and what is left of the context.
absl::StatusOr<int> GenerationService::Impl::MaxTokens(const GenerationRequest& request,
                                                       size_t prompt_tokens,
                                                       absl::string_view field) const {
  const size_t needed = prompt_tokens + (request.max_tokens == 0 ? 0 : 1);
  if (needed > static_cast<size_t>(context_length)) {
    return FieldError(
        field, absl::StrCat("is too long: this model's maximum context length is ", context_length,
                            " tokens; your prompt has ", prompt_tokens, " tokens"));
  }
  int64_t most = context_length - static_cast<int64_t>(prompt_tokens);
  if (max_new_tokens > 0) most = std::min<int64_t>(most, max_new_tokens);
  if (request.max_tokens.has_value()) most = std::min(most, *request.max_tokens);
  return static_cast<int>(most);
}

absl::StatusOr<std::shared_ptr<Prepared>> GenerationService::Impl::Prepare(
    const GenerationRequest& request) {
  if (!accepting) return absl::UnavailableError("the server is shutting down");
  auto prepared = std::make_shared<Prepared>();
  prepared->field = IsChat(request) ? "messages" : "prompt";
  EngineRequest& engine_request = prepared->engine;
  engine_request.tenant = request.tenant;
  DT_RETURN_IF_ERROR(CheckRequest(request, config->vocab_size, &engine_request));
  if (!tokenizer->has_vocab() && !std::holds_alternative<std::vector<int32_t>>(request.input)) {
    return FieldError(prepared->field,
                      "cannot be used: the model's file has no vocabulary; give token ids");
  }
  std::string chat_prompt;
  prepared->grammar = request.format;
  if (IsChat(request)) {
    DT_ASSIGN_OR_RETURN(chat_prompt, PrepareChat(request, prepared.get()));
  }
  DT_ASSIGN_OR_RETURN(engine_request.prompt, Tokenize(request, chat_prompt));
  DT_ASSIGN_OR_RETURN(engine_request.max_tokens,
                      MaxTokens(request, engine_request.prompt.size(), prepared->field));
  if (!request.ignore_eos) {
    const auto ends = tokenizer->end_of_generation();
    engine_request.end_tokens.insert(engine_request.end_tokens.end(), ends.begin(), ends.end());
  }
  GenerationSink::Options& options = prepared->sink;
  options.stops = request.stop;
  options.logprobs = request.logprobs.has_value();
  options.num_prompt_tokens = static_cast<int>(engine_request.prompt.size());
  options.seed = engine_request.sampling.seed;
  if (request.echo) {
    options.prompt = engine_request.prompt;
    const auto* text = std::get_if<std::string>(&request.input);
    if (text != nullptr) {
      options.prompt_text = *text;
    } else if (tokenizer->has_vocab()) {
      options.prompt_text = tokenizer->Decode(options.prompt, /*special=*/false);
    }
  }
  return prepared;
}

absl::StatusOr<RequestId> GenerationService::Impl::Submit(Prepared* prepared,
                                                          std::shared_ptr<EventSink> sink) {
  auto tokens = std::make_shared<GenerationSink>(tokenizer, engine, std::move(sink),
                                                 std::move(prepared->sink));
  absl::StatusOr<RequestId> id = engine->Submit(std::move(prepared->engine), tokens);
  if (!id.ok()) return NameField(id.status(), prepared->field);
  tokens->Attach(*id);
  return *id;
}

void GenerationService::Start(GenerationRequest request, std::shared_ptr<EventSink> sink,
                              const Started& done) {
  RequestMetrics* metrics = impl_->metrics;
  if (metrics == nullptr) return StartUncounted(request, std::move(sink), done);
  StartUncounted(request, metrics->Watch(std::move(sink), absl::Now()),
                 [metrics, done](absl::StatusOr<RequestId> id) {
                   if (!id.ok()) metrics->AddRejected(id.status());
                   done(std::move(id));
                 });
}

void GenerationService::StartUncounted(const GenerationRequest& request,
                                       std::shared_ptr<EventSink> sink, const Started& done) {
  absl::StatusOr<std::shared_ptr<Prepared>> prepared = impl_->Prepare(request);
  if (!prepared.ok()) return done(prepared.status());
  if (!(*prepared)->grammar.has_value()) return done(impl_->Submit(prepared->get(), sink));
  GrammarSpec spec = *std::move((*prepared)->grammar);
  impl_->Grammars().Compile(
      std::move(spec), [impl = impl_, prepared = *std::move(prepared), sink = std::move(sink),
                        done](const absl::StatusOr<std::shared_ptr<const Grammar>>& grammar) {
        if (!grammar.ok()) return done(grammar.status());
        if (!impl->accepting) return done(absl::UnavailableError("the server is shutting down"));
        prepared->engine.constraint = (*grammar)->Start(impl->engine->Waker());
        done(impl->Submit(prepared.get(), sink));
      });
}

absl::StatusOr<RequestId> GenerationService::Start(GenerationRequest request,
                                                   std::shared_ptr<EventSink> sink) {
  absl::StatusOr<RequestId> result = absl::InternalError("");
  absl::Notification started;
  Start(std::move(request), std::move(sink), [&](absl::StatusOr<RequestId> id) {
    result = std::move(id);
    started.Notify();
  });
  started.WaitForNotification();
  return result;
}

void GenerationService::Cancel(RequestId id) { impl_->engine->Cancel(id); }

absl::StatusOr<std::vector<int32_t>> GenerationService::Tokenize(
    const GenerationRequest& request) const {
  DT_ASSIGN_OR_RETURN(const std::shared_ptr<Prepared> prepared, impl_->Prepare(request));
  return std::move(prepared->engine.prompt);
}

void GenerationService::set_metrics(RequestMetrics* metrics) { impl_->metrics = metrics; }

const std::string& GenerationService::model_name() const { return impl_->model_name; }
const model::ModelConfig& GenerationService::config() const { return *impl_->config; }
const model::Tokenizer& GenerationService::tokenizer() const { return *impl_->tokenizer; }
EngineStats GenerationService::stats() const { return impl_->engine->stats(); }
int GenerationService::context_length() const { return impl_->context_length; }

void GenerationService::StopAccepting() { impl_->accepting = false; }

}  // namespace dovetail::coordinator
