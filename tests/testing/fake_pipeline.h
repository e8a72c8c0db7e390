// FakeWorkers: a whole route of workers in one object, for tests of the engine without processes.
//
// They keep a real KV cache (token and position per slot, through the block tables of the frames)
// and derive the next token from every token of the sequence that they find in it. So an answer is
// right only if blocks, positions, chunks and recomputation were right. A token with a bias of 100
// is drawn whatever came before, one that is excluded is not. Every frame is checked as a
// worker would check it; problems are collected in errors(). Thread-safe.
#ifndef DOVETAIL_TESTS_TESTING_FAKE_PIPELINE_H_
#define DOVETAIL_TESTS_TESTING_FAKE_PIPELINE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/step_shape.h"
#include "coordinator/pipeline.h"

namespace dovetail::testing {

class FakeWorkers : public std::enable_shared_from_this<FakeWorkers> {
 public:
  using NextToken = std::function<int32_t(absl::Span<const int32_t> tokens)>;

  FakeWorkers(const StepShape& shape, int vocab_size, int hidden_size, uint64_t epoch = 1);

  // A function of all tokens so far that spreads over the vocabulary.
  static int32_t Hash(absl::Span<const int32_t> tokens, int vocab_size);
  // What `num` tokens after `prompt` must be with Hash().
  static std::vector<int32_t> Continue(std::vector<int32_t> prompt, int num, int vocab_size);
  // The logit of `token` in the row of the last of `tokens`.
  static float Logit(absl::Span<const int32_t> tokens, int token);

  void set_next_token(NextToken next) { next_token_ = std::move(next); }
  // Of the pipelines that are made afterwards; before, there is one segment.
  void set_segment_workers(std::vector<int> workers) { segment_workers_ = std::move(workers); }

  // The logprob of `token` after `tokens`, from the logits of all.
  float Logprob(absl::Span<const int32_t> tokens, int token) const;

  // The pipeline to hand to an engine; refers to this object.
  std::unique_ptr<coordinator::Pipeline> MakePipeline();

  // Steps stay in flight until Release() lets `count` of them come back, in order.
  void Hold();
  void Release(int count);
  // Waits until all that were released came back, or there are none to come for a while.
  void AwaitReleased();
  // The next step comes back with this error_layer.
  void FailNextStep(uint32_t error_layer);
  // The next outputs carry this epoch.
  void AnswerWithEpoch(uint64_t epoch);
  // From now on Send or Poll return this.
  void BreakSend(const absl::Status& status);
  void BreakPoll(const absl::Status& status);

  int num_steps() const;   // that were sent
  int num_rows() const;    // that were computed
  int num_copies() const;  // of blocks that were made
  int max_sequences_seen() const;
  // Waits until `count` steps were sent; false after five seconds.
  bool WaitForSteps(int count) const;
  std::vector<std::string> errors() const;

  // Computes one frame, for tests without an engine.
  transport::StepOutput Compute(const transport::StepFrame& frame);

 private:
  friend class FakePipeline;
  struct Slot {
    int32_t token = -1;
    int32_t position = -1;
  };

  transport::StepOutput ComputeLocked(const transport::StepFrame& frame);
  struct Used {  // what of the frame the sequences before have used
    int rows = 0;
    int blocks = 0;
    int logit_rows = 0;
    size_t adjustments = 0;
    size_t mask_words = 0;
  };
  void ComputeSequence(const transport::StepFrame& frame, const transport::SequenceStep& step,
                       const Used& used, transport::StepOutput* output);
  int32_t Draw(const transport::StepFrame& frame, const transport::SequenceStep& step,
               const Used& used, absl::Span<const int32_t> tokens) const;
  void AppendLogprobs(absl::Span<const int32_t> tokens, int32_t target, int num_top,
                      std::vector<TokenLogprob>* out) const;

  const StepShape shape_;
  const int vocab_size_;
  const int hidden_size_;
  const uint64_t epoch_;
  std::vector<int> segment_workers_ = {0};
  NextToken next_token_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<Slot> kv_;
  std::deque<transport::StepOutput> outputs_;
  bool holding_ = false;
  int released_ = 0;
  bool woken_ = false;
  uint32_t error_layer_ = 0;
  uint64_t answer_epoch_;
  absl::Status send_status_;
  absl::Status poll_status_;
  int num_steps_ = 0;
  int num_rows_ = 0;
  int num_copies_ = 0;
  int max_sequences_seen_ = 0;
  std::vector<std::string> errors_;
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_FAKE_PIPELINE_H_
