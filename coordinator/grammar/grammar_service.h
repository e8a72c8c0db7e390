// GrammarService: what an answer must look like, compiled to masks of allowed tokens.
//
// Grammars come from clients and are hostile. They are compiled on threads of their own, bounded in
// size and time (a request whose grammar takes too long is refused; the thread goes on and is not
// waited for), and cached. A constraint computes the mask after each token on one more thread.
// Thread-safe. xgrammar, which does the work, throws; nothing is thrown out of here.
#ifndef DOVETAIL_COORDINATOR_GRAMMAR_GRAMMAR_SERVICE_H_
#define DOVETAIL_COORDINATOR_GRAMMAR_GRAMMAR_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/token_constraint.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

enum class GrammarKind {
  kJsonObject,     // any JSON object; the source is ""
  kJsonSchema,     // an instance of the schema
  kRegex,          // the whole answer matches
  kEbnf,           // GBNF, from its rule `root`
  kStructuralTag,  // xgrammar's description of texts with tagged parts, made by us
};

struct GrammarSpec {
  GrammarKind kind = GrammarKind::kJsonObject;
  std::string source;
  std::string field;  // of the request; errors name it
};

// A grammar that was compiled for the model's tokens. Immutable.
class Grammar {
 public:
  virtual ~Grammar() = default;
  // The beginning of a new answer, its first mask being computed. `wake` is called from another
  // thread whenever a mask becomes ready.
  virtual std::shared_ptr<TokenConstraint> Start(std::function<void()> wake) const = 0;
};

struct GrammarOptions {
  int compile_threads = 2;
  absl::Duration compile_timeout = absl::Seconds(10);
  size_t max_source_bytes = 128 << 10;
  int max_waiting = 64;  // grammars to be compiled
  int64_t cache_bytes = int64_t{128} << 20;
};

class GrammarService {
 public:
  // `tokenizer` must outlive it. Special tokens are not allowed anywhere, but for `markers`, which
  // count as their text. `vocab_size` is that of the logits.
  GrammarService(const model::Tokenizer* tokenizer, int vocab_size,
                 std::vector<std::string> markers, const GrammarOptions& options = {});
  // Ends what waits with kUnavailable.
  ~GrammarService();
  GrammarService(const GrammarService&) = delete;
  GrammarService& operator=(const GrammarService&) = delete;

  // Calls `done` exactly once, on a thread of this or at once. kInvalidArgument: the field and what
  // is wrong with it; kResourceExhausted: too many are waiting.
  using Done = std::function<void(absl::StatusOr<std::shared_ptr<const Grammar>>)>;
  void Compile(GrammarSpec spec, Done done);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GRAMMAR_GRAMMAR_SERVICE_H_
