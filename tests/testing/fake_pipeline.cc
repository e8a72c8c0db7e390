#include "tests/testing/fake_pipeline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "transport/step_frame_check.h"

namespace dovetail::testing {

using coordinator::Pipeline;
using transport::SequenceStep;
using transport::StepFrame;
using transport::StepOutput;

class FakePipeline : public Pipeline {
 public:
  explicit FakePipeline(std::shared_ptr<FakeWorkers> workers) : workers_(std::move(workers)) {}

  uint64_t epoch() const override { return workers_->epoch_; }
  absl::Span<const int> segment_workers() const override { return workers_->segment_workers_; }

  absl::Status Send(const StepFrame& frame) override {
    std::lock_guard<std::mutex> lock(workers_->mutex_);
    if (!workers_->send_status_.ok()) return workers_->send_status_;
    workers_->outputs_.push_back(workers_->ComputeLocked(frame));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Poll(StepOutput* output) override {
    std::lock_guard<std::mutex> lock(workers_->mutex_);
    FakeWorkers& w = *workers_;
    if (!w.poll_status_.ok()) return w.poll_status_;
    if (w.outputs_.empty() || (w.holding_ && w.released_ == 0)) return false;
    if (w.holding_) --w.released_;
    *output = std::move(w.outputs_.front());
    w.outputs_.pop_front();
    return true;
  }

  void Wait(absl::Duration timeout) override {
    std::unique_lock<std::mutex> lock(workers_->mutex_);
    FakeWorkers& w = *workers_;
    const auto until = absl::ToChronoTime(absl::Now() + std::min(timeout, absl::Hours(1)));
    w.changed_.wait_until(lock, until, [&w] {
      return w.woken_ || !w.poll_status_.ok() ||
             (!w.outputs_.empty() && (!w.holding_ || w.released_ > 0));
    });
    w.woken_ = false;
  }

  void Wake() override {
    std::lock_guard<std::mutex> lock(workers_->mutex_);
    workers_->woken_ = true;
    workers_->changed_.notify_all();
  }

 private:
  const std::shared_ptr<FakeWorkers> workers_;
};

FakeWorkers::FakeWorkers(const StepShape& shape, int vocab_size, int hidden_size, uint64_t epoch)
    : shape_(shape),
      vocab_size_(vocab_size),
      hidden_size_(hidden_size),
      epoch_(epoch),
      next_token_([vocab_size](absl::Span<const int32_t> t) { return Hash(t, vocab_size); }),
      kv_(static_cast<size_t>(shape.num_blocks_in_all()) * kKvBlockTokens),
      answer_epoch_(epoch) {}

static uint64_t HashOf(absl::Span<const int32_t> tokens) {
  uint64_t hash = 0x9e3779b97f4a7c15;
  for (int32_t token : tokens) hash = (hash ^ static_cast<uint64_t>(token)) * 0x100000001b3 + 7;
  return hash >> 16;
}

int32_t FakeWorkers::Hash(absl::Span<const int32_t> tokens, int vocab_size) {
  return static_cast<int32_t>(HashOf(tokens) % static_cast<uint64_t>(vocab_size));
}

std::vector<int32_t> FakeWorkers::Continue(std::vector<int32_t> prompt, int num, int vocab_size) {
  const size_t begin = prompt.size();
  for (int i = 0; i < num; ++i) prompt.push_back(Hash(prompt, vocab_size));
  return {prompt.begin() + static_cast<std::ptrdiff_t>(begin), prompt.end()};
}

float FakeWorkers::Logit(absl::Span<const int32_t> tokens, int token) {
  return static_cast<float>((HashOf(tokens) + static_cast<uint64_t>(token) * 37) % 1009);
}

std::unique_ptr<Pipeline> FakeWorkers::MakePipeline() {
  return std::make_unique<FakePipeline>(shared_from_this());
}

StepOutput FakeWorkers::Compute(const StepFrame& frame) {
  std::lock_guard<std::mutex> lock(mutex_);
  return ComputeLocked(frame);
}

StepOutput FakeWorkers::ComputeLocked(const StepFrame& frame) {
  const RowShape row = {.hidden_size = hidden_size_};
  absl::Status checked = transport::CheckStepHeader(
      frame.header, shape_, row, epoch_, {}, transport::StepBytes(frame.header, shape_, row));
  if (checked.ok()) checked = transport::CheckStepBody(frame, shape_);
  if (!checked.ok()) errors_.push_back(std::string(checked.message()));
  ++num_steps_;
  num_rows_ += static_cast<int>(frame.tokens.size());
  max_sequences_seen_ = std::max(max_sequences_seen_, static_cast<int>(frame.sequences.size()));

  for (const transport::BlockCopy& copy : frame.copies) {
    std::copy_n(kv_.begin() + copy.from * kKvBlockTokens, kKvBlockTokens,
                kv_.begin() + copy.to * kKvBlockTokens);
  }
  num_copies_ += static_cast<int>(frame.copies.size());
  StepOutput output;
  output.segment_us.assign(segment_workers_.size(), 100);
  output.header.num_segment_times = static_cast<uint32_t>(output.segment_us.size());
  output.header.lane = frame.header.lane;
  output.header.epoch = answer_epoch_;
  output.header.step = frame.header.step;
  output.header.vocab_size = static_cast<uint32_t>(vocab_size_);
  output.header.error_layer = std::exchange(error_layer_, 0);
  Used used;
  for (const SequenceStep& step : frame.sequences) {
    ComputeSequence(frame, step, used, &output);
    used.rows += step.num_rows;
    used.blocks += step.num_blocks;
    used.logit_rows += step.num_logit_rows;
    used.adjustments += static_cast<size_t>(step.num_adjustments);
    if ((step.flags & SequenceStep::kMasked) != 0) used.mask_words += MaskWords(vocab_size_);
  }
  if (output.header.error_layer != 0) {
    output.sequences.clear();
    output.logprobs.clear();
    output.logits.clear();
    output.hidden.clear();
  }
  output.header.num_logprobs = static_cast<uint32_t>(output.logprobs.size());
  output.header.num_sequences = static_cast<uint32_t>(output.sequences.size());
  output.header.num_logit_rows = static_cast<uint32_t>(output.logits.size()) / vocab_size_;
  output.header.hidden_size = static_cast<uint32_t>(hidden_size_);
  output.header.num_hidden_rows =
      hidden_size_ == 0 ? 0 : static_cast<uint32_t>(output.hidden.size()) / hidden_size_;
  changed_.notify_all();
  return output;
}

float FakeWorkers::Logprob(absl::Span<const int32_t> tokens, int token) const {
  double sum = 0;
  for (int other = 0; other < vocab_size_; ++other) {
    sum += std::exp(double{Logit(tokens, other)} - 1009);
  }
  return static_cast<float>(Logit(tokens, token) - 1009 - std::log(sum));
}

void FakeWorkers::AppendLogprobs(absl::Span<const int32_t> tokens, int32_t target, int num_top,
                                 std::vector<TokenLogprob>* out) const {
  out->push_back(target < 0 ? TokenLogprob{} : TokenLogprob{target, Logprob(tokens, target)});
  std::vector<int32_t> ranked(static_cast<size_t>(vocab_size_));
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int32_t a, int32_t b) { return Logit(tokens, a) > Logit(tokens, b); });
  for (int i = 0; i < num_top; ++i) out->push_back({ranked[i], Logprob(tokens, ranked[i])});
}

int32_t FakeWorkers::Draw(const StepFrame& frame, const SequenceStep& step, const Used& used,
                          absl::Span<const int32_t> tokens) const {
  const bool masked = (step.flags & SequenceStep::kMasked) != 0;
  std::vector<bool> allowed(static_cast<size_t>(vocab_size_), true);
  for (int token = 0; masked && token < vocab_size_; ++token) {
    allowed[token] = (frame.masks[used.mask_words + token / 32] >> (token % 32) & 1) != 0;
  }
  int32_t drawn = next_token_(tokens);
  for (int i = 0; i < step.num_adjustments; ++i) {
    const LogitAdjustment& a = frame.adjustments[used.adjustments + i];
    if (std::isinf(a.bias)) allowed[a.token] = false;
    if (a.bias >= 100) drawn = a.token;
  }
  for (int tries = 0; !allowed[drawn] && tries < vocab_size_; ++tries) {
    drawn = (drawn + 1) % vocab_size_;
  }
  return drawn;
}

void FakeWorkers::ComputeSequence(const StepFrame& frame, const SequenceStep& step,
                                  const Used& used, StepOutput* output) {
  const auto slot = [&](int position) -> Slot& {
    const int32_t block = frame.block_ids[used.blocks + position / kKvBlockTokens];
    return kv_[static_cast<size_t>(block) * kKvBlockTokens + position % kKvBlockTokens];
  };
  for (int i = 0; i < step.num_rows; ++i) {
    slot(step.position + i) = {frame.tokens[used.rows + i], step.position + i};
  }
  std::vector<int32_t> tokens;
  for (int position = 0; position < step.position + step.num_rows; ++position) {
    if (slot(position).position != position) {
      errors_.push_back(absl::StrCat("sequence ", step.sequence_id, " has position ",
                                     slot(position).position, " where ", position, " should be"));
    }
    tokens.push_back(slot(position).token);
  }
  transport::SequenceOutput result;
  result.sequence_id = step.sequence_id;
  if ((step.flags & SequenceStep::kSample) != 0) result.token = Draw(frame, step, used, tokens);
  if ((step.flags & SequenceStep::kLogprobs) != 0) {
    result.num_logprob_rows = step.num_logit_rows;
    result.num_top_logprobs = step.num_top_logprobs;
  }
  for (int i = 0; i < step.num_logit_rows; ++i) {
    const int row = frame.logit_rows[used.logit_rows + i] - used.rows;
    const auto prefix = absl::MakeConstSpan(tokens).subspan(0, step.position + row + 1);
    if ((step.flags & SequenceStep::kLogprobs) != 0) {
      const int32_t target = frame.targets[used.logit_rows + i];
      const bool last = row == step.num_rows - 1;
      AppendLogprobs(prefix, target < 0 && last ? result.token : target, step.num_top_logprobs,
                     &output->logprobs);
    }
    if ((step.flags & SequenceStep::kReturnHidden) != 0) {
      ++result.num_hidden_rows;
      for (int i = 0; i < hidden_size_; ++i) output->hidden.push_back(Logit(prefix, i));
    }
    if ((step.flags & SequenceStep::kReturnLogits) == 0) continue;
    ++result.num_logit_rows;
    for (int token = 0; token < vocab_size_; ++token) {
      output->logits.push_back(Logit(prefix, token));
    }
  }
  output->sequences.push_back(result);
}

void FakeWorkers::Hold() {
  std::lock_guard<std::mutex> lock(mutex_);
  holding_ = true;
}

void FakeWorkers::Release(int count) {
  std::lock_guard<std::mutex> lock(mutex_);
  released_ += count;
  changed_.notify_all();
}

void FakeWorkers::AwaitReleased() {
  for (int i = 0; i < 200; ++i) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (released_ <= 0) return;
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
}

void FakeWorkers::FailNextStep(uint32_t error_layer) {
  std::lock_guard<std::mutex> lock(mutex_);
  error_layer_ = error_layer;
}

void FakeWorkers::AnswerWithEpoch(uint64_t epoch) {
  std::lock_guard<std::mutex> lock(mutex_);
  answer_epoch_ = epoch;
}

void FakeWorkers::BreakSend(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  send_status_ = status;
}

void FakeWorkers::BreakPoll(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  poll_status_ = status;
  changed_.notify_all();
}

int FakeWorkers::num_steps() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return num_steps_;
}

int FakeWorkers::num_rows() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return num_rows_;
}

int FakeWorkers::num_copies() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return num_copies_;
}

int FakeWorkers::max_sequences_seen() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return max_sequences_seen_;
}

bool FakeWorkers::WaitForSteps(int count) const {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + absl::Seconds(5)),
                             [&] { return num_steps_ >= count; });
}

std::vector<std::string> FakeWorkers::errors() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return errors_;
}

}  // namespace dovetail::testing
