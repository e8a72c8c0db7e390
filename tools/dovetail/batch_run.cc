#include "tools/dovetail/batch_run.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"

namespace dovetail::tools {
namespace {

using coordinator::FinishReason;

// Counts the requests of a batch that still run and keeps the first error.
class Latch {
 public:
  explicit Latch(int count) : left_(count) {}
  void Done(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
    --left_;
  }
  absl::Status Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Latch* l) { return l->left_ == 0; }, this));
    return status_;
  }

 private:
  absl::Mutex mutex_;
  int left_;
  absl::Status status_;
};

class Slot : public coordinator::TokenSink {
 public:
  Slot(size_t index, BatchResult* result, const LogitsFn& on_logits, Latch* latch)
      : index_(index), result_(result), on_logits_(on_logits), latch_(latch) {}

  void OnToken(int32_t token) override {
    result_->tokens.push_back(token);
    result_->token_times.push_back(absl::Now());
  }
  void OnLogits(int first_row, absl::Span<const float> rows, int vocab_size) override {
    if (on_logits_) on_logits_(index_, first_row, rows, vocab_size);
  }
  void OnFinish(FinishReason reason, const absl::Status& status,
                const coordinator::RequestUsage& usage) override {
    const bool bad = reason == FinishReason::kError || reason == FinishReason::kCancelled;
    latch_->Done(!bad          ? absl::OkStatus()
                 : status.ok() ? absl::InternalError("request ended without a result")
                               : status);
  }

 private:
  size_t index_;
  BatchResult* result_;
  const LogitsFn& on_logits_;
  Latch* latch_;
};

}  // namespace

absl::StatusOr<std::vector<BatchResult>> RunBatch(coordinator::Engine* engine,
                                                  const std::vector<BatchRequest>& requests,
                                                  int batch, const LogitsFn& on_logits) {
  std::vector<BatchResult> results(requests.size());
  for (size_t begin = 0; begin < requests.size(); begin += static_cast<size_t>(batch)) {
    const size_t end = std::min(requests.size(), begin + static_cast<size_t>(batch));
    Latch latch(static_cast<int>(end - begin));
    const absl::Time start = absl::Now();
    for (size_t i = begin; i < end; ++i) {
      results[i].tokens.reserve(static_cast<size_t>(requests[i].max_tokens));
      results[i].token_times.reserve(static_cast<size_t>(requests[i].max_tokens));
      coordinator::EngineRequest request;
      request.prompt = requests[i].prompt;
      request.max_tokens = requests[i].max_tokens;
      request.logits = requests[i].logits;
      request.sampling = requests[i].sampling;
      absl::SleepFor(start + requests[i].at - absl::Now());
      results[i].submitted = absl::Now();
      auto id = engine->Submit(std::move(request),
                               std::make_shared<Slot>(i, &results[i], on_logits, &latch));
      if (!id.ok()) latch.Done(Annotate(id.status(), absl::StrCat("list ", i)));
    }
    DT_RETURN_IF_ERROR(latch.Wait());
  }
  return results;
}

}  // namespace dovetail::tools
