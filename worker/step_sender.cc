#include "worker/step_sender.h"

#include "absl/time/clock.h"
#include "transport/step_frame_check.h"

namespace dovetail::worker {

using transport::OutputHeader;
using transport::SequenceOutput;
using transport::SequenceStep;
using transport::StepFrame;

StepSender::StepSender(ModelRunner* runner, const kernels::KernelTable* kernels,
                       const StepShape& shape, ThreadPool* pool)
    : runner_(runner), pool_(pool), mask_words_(MaskWords(shape.vocab_size)) {
  const HostRows& host = runner->host();
  const auto max_adjustments = static_cast<int32_t>(transport::MaxAdjustments(shape, 1));
  if (host.probs != nullptr) {  // else another worker has the lm_head
    for (int i = 0; i < pool->num_threads(); ++i) {
      const int64_t offset = int64_t{i} * runner->vocab_size();
      samplers_.emplace_back(kernels, runner->vocab_size(), max_adjustments, host.probs + offset,
                             host.ids + offset);
    }
  }
  jobs_.reserve(shape.max_logit_rows);
  outputs_.reserve(shape.max_sequences);
  logprobs_.reserve(transport::MaxLogprobs(shape));
  logits_.reserve(shape.max_logit_rows);
  hidden_.reserve(shape.max_logit_rows);
  pieces_.reserve(transport::OutputPieces(shape));
  segment_us_.reserve(kMaxRouteSegments);
}

absl::Status StepSender::Send(const StepFrame& frame, transport::TensorSender& sender,
                              absl::Duration timeout) {
  outputs_.clear();
  logits_.clear();
  hidden_.clear();
  logprobs_.clear();
  jobs_.clear();
  // After a value that is not finite there are no logits: nothing is drawn from them.
  const bool failed = frame.header.error_layer != 0;
  Used used;
  for (const SequenceStep& sequence : frame.sequences) {
    outputs_.push_back({.sequence_id = sequence.sequence_id});
    if (!failed) AddSequence(frame, sequence, used);
    used.logit_rows += sequence.num_logit_rows;
    used.adjustments += static_cast<size_t>(sequence.num_adjustments);
    if ((sequence.flags & SequenceStep::kMasked) != 0) used.mask_words += mask_words_;
  }
  const absl::Time start = absl::Now();
  RunJobs();
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
  header.num_logprobs = static_cast<uint32_t>(logprobs_.size());
  header.vocab_size = static_cast<uint32_t>(runner_->vocab_size());
  header.error_layer = frame.header.error_layer;
  header.num_segment_times = static_cast<uint32_t>(segment_us_.size());
  header.num_hidden_rows = static_cast<uint32_t>(hidden_.size());
  header.hidden_size = static_cast<uint32_t>(runner_->row_shape().hidden_size);
  return transport::SendOutputRows(sender, header, outputs_, logprobs_, segment_us_, logits_,
                                   hidden_, &pieces_, timeout);
}

void StepSender::AddSequence(const StepFrame& frame, const SequenceStep& sequence,
                             const Used& used) {
  SequenceOutput& output = outputs_.back();
  if ((sequence.flags & SequenceStep::kReturnHidden) != 0) {
    output.num_hidden_rows = sequence.num_logit_rows;
    for (int i = 0; i < sequence.num_logit_rows; ++i) {
      hidden_.push_back(runner_->hidden(used.logit_rows + i));
    }
    return;
  }
  const int32_t* const best_tokens = runner_->host().best_tokens;
  if (best_tokens != nullptr && sequence.TakesBestToken()) {
    output.token = best_tokens[used.logit_rows + sequence.num_logit_rows - 1];
    return;
  }
  const bool samples = (sequence.flags & SequenceStep::kSample) != 0;
  const bool logprobs = (sequence.flags & SequenceStep::kLogprobs) != 0;
  Job job = {};
  job.sequence = &sequence;
  if (logprobs) {
    output.num_logprob_rows = sequence.num_logit_rows;
    output.num_top_logprobs = sequence.num_top_logprobs;
    job.num_logprobs = 1 + static_cast<size_t>(sequence.num_top_logprobs);
  }
  for (int i = 0; i < sequence.num_logit_rows; ++i) {
    const bool draws = samples && i == sequence.num_logit_rows - 1;
    if (!draws && !logprobs) continue;
    const int row = used.logit_rows + i;
    job.logits = runner_->logits(row);
    job.target = frame.targets[row];
    job.first_logprob = logprobs_.size();
    logprobs_.resize(logprobs_.size() + job.num_logprobs);
    if (draws) {
      job.output = &output;
      job.constraints.adjustments =
          absl::MakeConstSpan(frame.adjustments)
              .subspan(used.adjustments, static_cast<size_t>(sequence.num_adjustments));
      if ((sequence.flags & SequenceStep::kMasked) != 0) {
        job.constraints.mask = frame.masks.data() + used.mask_words;
      }
    }
    jobs_.push_back(job);
  }
  if ((sequence.flags & SequenceStep::kReturnLogits) != 0) {
    output.num_logit_rows = sequence.num_logit_rows;
    for (int i = 0; i < sequence.num_logit_rows; ++i) {
      logits_.push_back(runner_->logits(used.logit_rows + i));
    }
  }
}

void StepSender::RunJob(const Job& job, Sampler* sampler) {
  const auto logprobs = absl::MakeSpan(logprobs_).subspan(job.first_logprob, job.num_logprobs);
  if (job.output == nullptr) return sampler->Logprobs(job.logits, job.target, logprobs);
  const SequenceStep& sequence = *job.sequence;
  const uint32_t position = static_cast<uint32_t>(sequence.position + sequence.num_rows);
  job.output->token =
      sampler->Draw(job.logits, job.constraints, sequence.sampling, position, logprobs);
}

void StepSender::RunJobs() {
  const auto run = [this](int thread, Range part) {
    for (int64_t i = part.begin; i < part.end; ++i) RunJob(jobs_[i], &samplers_[thread]);
  };
  const int64_t count = static_cast<int64_t>(jobs_.size());
  if (count <= 1) return run(0, {0, count});
  pool_->Run([&](int idx, int n) { run(idx, Slice(count, idx, n)); });
}

}  // namespace dovetail::worker
