// Generation: from text or messages to a stream of text events; what every API dialect encodes.
//
// GenerationService tokenises (and renders the chat template), submits to the engine, and turns
// tokens into text: streaming detokenizer, stop strings across token borders, usage. Encoders
// (HTTP, gRPC) only translate its events. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_GENERATION_H_
#define DOVETAIL_COORDINATOR_GENERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "model/chat_template/chat_template.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct GenerationRequest {
  // Text (completed as it is, special tokens not parsed), token ids, or chat messages.
  std::variant<std::string, std::vector<int32_t>, std::vector<ChatMessage>> input;
  std::optional<float> temperature, top_p, min_p;  // checked here: InvalidArgument names the field
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;       // default: random, reported in the first event
  std::optional<int64_t> max_tokens;  // default: until the context ends
  std::vector<std::string> stop;      // at most 16, none empty
  bool ignore_eos = false;
  absl::Time deadline = absl::InfiniteFuture();
  std::string tenant;  // the name of the API key; "" where none is needed
};

struct GenerationEvent {
  std::string text;  // delta; may be empty
  std::vector<int32_t> tokens;
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
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

class RequestMetrics;

class GenerationService {
 public:
  // All borrowed and outliving this. `chat_template` may be null (no chat then).
  GenerationService(std::string model_name, const model::ModelConfig* config,
                    const model::Tokenizer* tokenizer, const model::ChatTemplate* chat_template,
                    Engine* engine, int context_length, int max_new_tokens);

  // Starts a generation; events follow on `sink` until one is `finished`. Errors are for the
  // client: field names, limits, kResourceExhausted, kUnavailable. An InvalidArgument about a field
  // begins with its name in backticks: "`max_tokens` must be at least 1, got -4".
  absl::StatusOr<RequestId> Start(const GenerationRequest& request,
                                  std::shared_ptr<EventSink> sink);
  void Cancel(RequestId id);
  // The prompt's tokens, as Start() would compute them.
  absl::StatusOr<std::vector<int32_t>> Tokenize(const GenerationRequest& request) const;
  // Requests are counted and timed from now on. Borrowed; before the first Start().
  void set_metrics(RequestMetrics* metrics);

  const std::string& model_name() const;
  const model::ModelConfig& config() const;
  const model::Tokenizer& tokenizer() const;
  int context_length() const;
  // NotFound unless `model` is empty or this model's name: "The model `x` does not exist".
  absl::Status CheckModel(const std::string& model) const;
  // Refuse new requests with kUnavailable from now on (draining).
  void StopAccepting();

 private:
  struct Impl;
  absl::StatusOr<RequestId> Submit(const GenerationRequest& request,
                                   std::shared_ptr<EventSink> sink);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GENERATION_H_
