// Random valid frames, shared by the tests of frames.
#ifndef DOVETAIL_TESTS_UNIT_TRANSPORT_STEP_FRAME_TESTING_H_
#define DOVETAIL_TESTS_UNIT_TRANSPORT_STEP_FRAME_TESTING_H_

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "transport/step_frame.h"

namespace dovetail::testing {

inline constexpr int kHiddenSize = 12;
inline constexpr RowShape kRow = {
    .hidden_size = kHiddenSize, .num_experts = 9, .experts_used = 3, .shared_slot = true};
inline constexpr int kVocabSize = 50;
inline constexpr uint64_t kEpoch = 9;

inline StepShape SmallShape() {
  return StepShape{.max_rows = 40,
                   .max_sequences = 6,
                   .max_logit_rows = 20,
                   .context_length = 200,
                   .num_kv_blocks = 30,
                   .kv_type = KvType::kF16,
                   .vocab_size = kVocabSize};
}

struct FrameAndRows {
  transport::StepFrame frame;
  std::vector<float> hidden;
  std::vector<int32_t> slot_experts;
  std::vector<float> slot_weights;
  std::vector<float> partials;

  transport::StepRows rows() const { return {hidden, slot_experts, slot_weights, partials}; }
};

// Room for the largest frame.
struct RowsRoom {
  std::vector<float> hidden = std::vector<float>(size_t{40} * kHiddenSize);
  std::vector<int32_t> slot_experts = std::vector<int32_t>(size_t{40} * kRow.experts_used);
  std::vector<float> slot_weights = std::vector<float>(size_t{40} * kRow.slots());
  std::vector<float> partials = std::vector<float>(size_t{40} * kRow.slots() * kHiddenSize);

  transport::StepRoom span() {
    return {absl::MakeSpan(hidden), absl::MakeSpan(slot_experts), absl::MakeSpan(slot_weights),
            absl::MakeSpan(partials)};
  }
};

class FrameMaker {
 public:
  explicit FrameMaker(uint64_t seed) : random_(seed) {}

  FrameAndRows Next() {
    const StepShape shape = SmallShape();
    FrameAndRows out;
    transport::StepFrame& frame = out.frame;
    const int num_sequences = Between(1, shape.max_sequences);
    int rows_left = shape.max_rows;
    int logits_left = shape.max_logit_rows;
    for (int i = 0; i < num_sequences; ++i) {
      const int spare = rows_left - (num_sequences - i - 1);
      AddSequence(shape, Between(1, std::min(spare, 15)), &logits_left, &frame);
      rows_left -= frame.sequences.back().num_rows;
    }
    transport::StepHeader& h = frame.header;
    h.segment = Between(0, 3);
    h.epoch = kEpoch;
    h.step = random_();
    h.lane = Between(0, 3);
    h.num_sequences = frame.sequences.size();
    h.num_rows = frame.tokens.size();
    h.num_block_ids = frame.block_ids.size();
    h.num_logit_rows = frame.logit_rows.size();
    h.num_adjustments = frame.adjustments.size();
    h.num_masks = frame.masks.size() / MaskWords(kVocabSize);
    for (int i = Between(0, shape.max_block_copies()); i > 0; --i) {
      const int from = Between(0, shape.num_blocks_in_all() - 2);
      frame.copies.push_back({from, from + 1});
    }
    h.num_copies = frame.copies.size();
    for (uint32_t i = 0; i < h.segment; ++i) frame.segment_us.push_back(Between(0, 1 << 30));
    h.num_segment_times = frame.segment_us.size();
    const uint32_t choices[] = {0, h.num_rows, h.num_logit_rows};
    h.hidden_rows = choices[Between(0, 2)];
    h.hidden_size = kHiddenSize;
    Fill(h.hidden_rows * h.hidden_size, &out.hidden);
    if (h.hidden_rows == h.num_rows && Between(0, 1) == 0) AddSlots(&out);
    return out;
  }

  transport::StepOutput NextOutput() {
    const StepShape shape = SmallShape();
    transport::StepOutput out;
    out.header.epoch = kEpoch;
    out.header.step = random_();
    out.header.vocab_size = kVocabSize;
    out.header.num_sequences = Between(0, shape.max_sequences);
    int left = shape.max_logit_rows;
    for (uint32_t i = 0; i < out.header.num_sequences; ++i) {
      transport::SequenceOutput sequence;
      sequence.sequence_id = random_();
      sequence.token = Between(-1, kVocabSize - 1);
      sequence.num_logit_rows = Between(0, std::min(left, 5));
      left -= sequence.num_logit_rows;
      out.header.num_logit_rows += sequence.num_logit_rows;
      sequence.num_hidden_rows = Between(0, std::min(left, 2));
      left -= sequence.num_hidden_rows;
      out.header.num_hidden_rows += sequence.num_hidden_rows;
      AddLogprobs(&sequence, &out);
      out.sequences.push_back(sequence);
    }
    out.header.num_logprobs = out.logprobs.size();
    for (int i = Between(0, 9); i > 0; --i) out.segment_us.push_back(Between(0, 1 << 30));
    out.header.num_segment_times = out.segment_us.size();
    out.logits.resize(size_t{out.header.num_logit_rows} * kVocabSize);
    for (float& value : out.logits) value = static_cast<float>(Between(-1000, 1000)) / 3.0f;
    out.header.hidden_size = kHiddenSize;
    Fill(size_t{out.header.num_hidden_rows} * kHiddenSize, &out.hidden);
    return out;
  }

 private:
  void Fill(size_t count, std::vector<float>* values) {
    values->resize(count);
    for (float& value : *values) value = static_cast<float>(Between(-1000, 1000)) / 7.0f;
  }

  // A frame between the parts of a layer with experts.
  void AddSlots(FrameAndRows* out) {
    transport::StepHeader& h = out->frame.header;
    h.slot_rows = h.num_rows;
    h.partial_rows = Between(0, static_cast<int>(h.slot_rows) * kRow.slots());
    for (uint32_t row = 0; row < h.slot_rows; ++row) {
      const int first = Between(0, kRow.num_experts - 1);
      for (int slot = 0; slot < kRow.experts_used; ++slot) {
        out->slot_experts.push_back((first + 2 * slot) % kRow.num_experts);
      }
    }
    Fill(size_t{h.slot_rows} * kRow.slots(), &out->slot_weights);
    Fill(size_t{h.partial_rows} * kHiddenSize, &out->partials);
  }

  int Between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  void AddSequence(const StepShape& shape, int num_rows, int* logits_left,
                   transport::StepFrame* frame) {
    transport::SequenceStep s;
    s.sequence_id = random_();
    s.num_rows = num_rows;
    s.position = Between(0, shape.context_length - num_rows);
    const int needed = (s.position + num_rows + kKvBlockTokens - 1) / kKvBlockTokens;
    s.num_blocks = Between(needed, shape.max_blocks_per_sequence());
    s.flags = Between(0, 16);  // hidden states are asked for alone
    if (s.flags == transport::SequenceStep::kReturnHidden) {
      // nothing is drawn
    } else if ((s.flags & transport::SequenceStep::kReturnLogits) != 0) {
      s.flags &= ~uint32_t{transport::SequenceStep::kMasked};
    } else {
      AddAdjustments(&s, frame);
    }
    s.sampling.temperature = static_cast<float>(Between(0, 20)) / 10.0f;
    s.sampling.top_p = static_cast<float>(Between(1, 10)) / 10.0f;
    s.sampling.top_k = Between(0, 5);
    s.sampling.seed = random_();
    const int first_row = static_cast<int>(frame->tokens.size());
    if (*logits_left == 0) s.flags &= ~uint32_t{transport::SequenceStep::kSample};
    for (int row = 0; row < num_rows; ++row) {
      frame->tokens.push_back(Between(0, 1 << 20));
      const bool last = row == num_rows - 1;
      const bool must = last && (s.flags & transport::SequenceStep::kSample) != 0;
      // One is kept back for the last row of a sequence that is sampled.
      if (must || (!last && *logits_left > 1 && Between(0, 3) == 0)) {
        frame->logit_rows.push_back(first_row + row);
        frame->targets.push_back(Between(-1, 1 << 20));
        ++s.num_logit_rows;
        --*logits_left;
      }
    }
    for (int i = 0; i < s.num_blocks; ++i) {
      frame->block_ids.push_back(Between(0, shape.num_kv_blocks - 1));
    }
    frame->sequences.push_back(s);
  }

  void AddAdjustments(transport::SequenceStep* s, transport::StepFrame* frame) {
    using transport::SequenceStep;
    s->num_adjustments = Between(0, 6);
    for (int i = 0; i < s->num_adjustments; ++i) {
      const float bias = static_cast<float>(Between(-100, 100));
      frame->adjustments.push_back({.token = Between(0, 1 << 20),
                                    .bias = bias == 0 ? -INFINITY : bias,
                                    .scale = static_cast<float>(Between(1, 20)) / 10.0f});
    }
    if ((s->flags & SequenceStep::kLogprobs) != 0) {
      s->num_top_logprobs = Between(0, kMaxTopLogprobs);
    }
    if ((s->flags & SequenceStep::kMasked) == 0) return;
    for (int i = 0; i < MaskWords(kVocabSize); ++i) {
      frame->masks.push_back(static_cast<uint32_t>(random_()));
    }
  }

  void AddLogprobs(transport::SequenceOutput* sequence, transport::StepOutput* out) {
    sequence->num_logprob_rows = Between(0, 3);
    sequence->num_top_logprobs = Between(0, kMaxTopLogprobs);
    const int count = sequence->num_logprob_rows * (1 + sequence->num_top_logprobs);
    for (int i = 0; i < count; ++i) {
      out->logprobs.push_back(
          {Between(-1, kVocabSize - 1), -static_cast<float>(Between(0, 1000)) / 7.0f});
    }
  }

  std::mt19937_64 random_;
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_UNIT_TRANSPORT_STEP_FRAME_TESTING_H_
