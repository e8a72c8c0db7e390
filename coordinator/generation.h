// Generation: from text or messages to a stream of text events; what every API dialect encodes.
//
// GenerationService tokenises (and renders the chat template), has grammars compiled, submits to
// the engine, and turns tokens into events (generation_sink.h). Encoders (HTTP, gRPC) only
// translate them. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_GENERATION_H_
#define DOVETAIL_COORDINATOR_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/chat/chat_format.h"
#include "coordinator/engine.h"
#include "coordinator/generation_request.h"
#include "model/chat_template/chat_template.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

class RequestMetrics;

class GenerationService {
 public:
  // All borrowed and outliving this. `chat_template` may be null (no chat then). The parsers of
  // answers are named in `parsers`; the other fields of it are filled in here.
  GenerationService(std::string model_name, const model::ModelConfig* config,
                    const model::Tokenizer* tokenizer, const model::ChatTemplate* chat_template,
                    Engine* engine, int context_length, int max_new_tokens,
                    const ChatFormatOptions& parsers = {});
  ~GenerationService();

  // Starts a generation; events follow on `sink` until one is `finished`. Errors are for the
  // client: field names, limits, kResourceExhausted, kUnavailable. An InvalidArgument about a field
  // begins with its name in backticks: "`max_tokens` must be at least 1, got -4".
  //
  // `done` gets the request's id, or what is wrong, exactly once: before this returns, or from a
  // thread that compiled a grammar.
  using Started = std::function<void(absl::StatusOr<RequestId>)>;
  void Start(GenerationRequest request, std::shared_ptr<EventSink> sink, const Started& done);
  // The same; waits for a grammar.
  absl::StatusOr<RequestId> Start(GenerationRequest request, std::shared_ptr<EventSink> sink);
  void Cancel(RequestId id);
  // The prompt's tokens, as Start() would compute them.
  absl::StatusOr<std::vector<int32_t>> Tokenize(const GenerationRequest& request) const;
  // Requests are counted and timed from now on. Borrowed; before the first Start().
  void set_metrics(RequestMetrics* metrics);

  const std::string& model_name() const;
  const model::ModelConfig& config() const;
  const model::Tokenizer& tokenizer() const;
  int context_length() const;
  EngineStats stats() const;
  // Refuse new requests with kUnavailable from now on (draining).
  void StopAccepting();

 private:
  struct Impl;
  void StartUncounted(const GenerationRequest& request, std::shared_ptr<EventSink> sink,
                      const Started& done);
  std::shared_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GENERATION_H_
