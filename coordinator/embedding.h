// EmbeddingService: from texts to vectors.
//
// A text's hidden states after the last norm are pooled as the model's file says (the last token's
// where it does not say) and scaled to length 1. Texts go to the engine a few at a time, each as a
// request of its own, so that a long list does not fill the queue; vectors do not depend on what
// else is computed. One thread tokenises, submits and calls back. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_EMBEDDING_H_
#define DOVETAIL_COORDINATOR_EMBEDDING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

struct EmbeddingRequest {
  std::vector<std::variant<std::string, std::vector<int32_t>>> inputs;  // texts, or token ids
  bool truncate = false;  // what is longer than the context is cut; otherwise it is an error
  absl::Time deadline = absl::InfiniteFuture();
  std::string tenant;
};

struct Embeddings {
  std::vector<std::vector<float>> vectors;  // one for each input, of the model's hidden size
  int prompt_tokens = 0;
};

class EmbeddingService {
 public:
  static constexpr size_t kMaxInputs = 2048;

  // All borrowed and outliving this.
  EmbeddingService(const model::ModelConfig* config, const model::Tokenizer* tokenizer,
                   Engine* engine, int context_length);
  ~EmbeddingService();  // ends what runs with kCancelled

  // `done` is called once, on the service's thread; a mistake in an input is an InvalidArgument
  // that begins with its name: "`input[2]` is too long: ...". The result is for Cancel().
  using Done = std::function<void(absl::StatusOr<Embeddings>)>;
  uint64_t Start(EmbeddingRequest request, Done done);
  void Cancel(uint64_t id);
  // Refuse new calls with kUnavailable from now on (draining).
  void StopAccepting();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Scales to length 1; a vector of zeros stays. The sum of squares is in f64, in order.
void Normalise(std::vector<float>* vector);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_EMBEDDING_H_
