#include "worker/step_sender.h"

#include "absl/time/clock.h"

namespace dovetail::worker {

using transport::OutputHeader;
using transport::SequenceOutput;
using transport::SequenceStep;
using transport::StepFrame;

StepSender::StepSender(ModelRunner* runner, const kernels::KernelTable* kernels,
                       const StepShape& shape, ThreadPool* pool)
    : runner_(runner), pool_(pool) {
  const Workspace& ws = runner->workspace();
  if (ws.probs != nullptr) {  // else another worker has the lm_head
    for (int i = 0; i < pool->num_threads(); ++i) {
      const int64_t offset = int64_t{i} * runner->vocab_size();
      samplers_.emplace_back(kernels, runner->vocab_size(), ws.probs + offset, ws.ids + offset);
    }
  }
  draws_.reserve(shape.max_sequences);
  outputs_.reserve(shape.max_sequences);
  logits_.reserve(shape.max_logit_rows);
  pieces_.reserve(transport::OutputPieces(shape));
  segment_us_.reserve(kMaxRouteSegments);
}

absl::Status StepSender::Send(const StepFrame& frame, transport::TensorSender& sender,
                              absl::Duration timeout) {
  outputs_.clear();
  logits_.clear();
  draws_.clear();
  // After a value that is not finite there are no logits: nothing is drawn from them.
  const bool failed = frame.header.error_layer != 0;
  int logit_row = 0;
  for (const SequenceStep& sequence : frame.sequences) {
    outputs_.push_back({.sequence_id = sequence.sequence_id});
    if (!failed) AddSequence(sequence, logit_row);
    logit_row += sequence.num_logit_rows;
  }
  const absl::Time start = absl::Now();
  DrawTokens();
  segment_us_.assign(frame.segment_us.begin(), frame.segment_us.end());
  if (!segment_us_.empty()) {  // the last segment's work, too
    segment_us_.back() += static_cast<uint32_t>(absl::ToInt64Microseconds(absl::Now() - start));
  }
  OutputHeader header;
  header.lane = frame.header.lane;
  header.epoch = frame.header.epoch;
  header.step = frame.header.step;
  header.num_sequences = static_cast<uint32_t>(outputs_.size());
  header.num_logit_rows = static_cast<uint32_t>(logits_.size());
  header.vocab_size = static_cast<uint32_t>(runner_->vocab_size());
  header.error_layer = frame.header.error_layer;
  header.num_segment_times = static_cast<uint32_t>(segment_us_.size());
  return transport::SendOutputRows(sender, header, outputs_, segment_us_, logits_, &pieces_,
                                   timeout);
}

void StepSender::AddSequence(const SequenceStep& sequence, int first_logit_row) {
  if ((sequence.flags & SequenceStep::kSample) != 0) {
    const int last_row = first_logit_row + sequence.num_logit_rows - 1;
    draws_.push_back({&sequence, runner_->logits(last_row), outputs_.size() - 1});
  }
  if ((sequence.flags & SequenceStep::kReturnLogits) != 0) {
    outputs_.back().num_logit_rows = sequence.num_logit_rows;
    for (int i = 0; i < sequence.num_logit_rows; ++i) {
      logits_.push_back(runner_->logits(first_logit_row + i));
    }
  }
}

void StepSender::DrawTokens() {
  const auto draw = [this](int thread, Range part) {
    for (int64_t i = part.begin; i < part.end; ++i) {
      const SequenceStep& sequence = *draws_[i].sequence;
      const uint32_t position = static_cast<uint32_t>(sequence.position + sequence.num_rows);
      outputs_[draws_[i].output].token =
          samplers_[thread].Sample(draws_[i].logits, sequence.sampling, position);
    }
  };
  const int64_t count = static_cast<int64_t>(draws_.size());
  if (count <= 1) return draw(0, {0, count});
  pool_->Run([&](int idx, int n) { draw(idx, Slice(count, idx, n)); });
}

}  // namespace dovetail::worker
