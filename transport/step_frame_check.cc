#include "transport/step_frame_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

absl::Status Bad(absl::string_view field, absl::string_view what) {
  return absl::InternalError(absl::StrCat("malformed frame: ", field, " ", what));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Bad(field, absl::StrCat("is ", value, ", allowed are ", low, " to ", high));
}

absl::Status CheckEpoch(uint64_t found, uint64_t expected) {
  if (found == expected) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("frame of epoch ", found, ", this is epoch ", expected));
}

absl::Status CheckSize(uint64_t announced, uint64_t message_bytes) {
  if (announced == message_bytes) return absl::OkStatus();
  return Bad("message",
             absl::StrCat("has ", message_bytes, " bytes, its header makes ", announced));
}

absl::Status CheckRoom(absl::string_view field, uint64_t rows, uint64_t cols, uint64_t room) {
  if (rows * cols <= room) return absl::OkStatus();
  return Bad(field, absl::StrCat("of ", rows, " x ", cols, " values do not fit in ", room));
}

uint64_t SlotBytes(const RowShape& row) {
  return sizeof(int32_t) * static_cast<uint64_t>(row.experts_used) +
         sizeof(float) * static_cast<uint64_t>(row.slots());
}

// Slots travel with the whole residual stream, partial rows with the slots that they fill.
absl::Status CheckSlotRows(const StepHeader& h, const RowShape& row, const StepRoom& room) {
  if (h.slot_rows == 0) return CheckRange("partial_rows", h.partial_rows, 0, 0);
  const int64_t rows = row.num_experts > 0 && h.hidden_rows == h.num_rows ? h.num_rows : 0;
  DT_RETURN_IF_ERROR(CheckRange("slot_rows", h.slot_rows, rows, rows));
  const uint64_t used = static_cast<uint64_t>(row.experts_used);
  const uint64_t slots = static_cast<uint64_t>(row.slots());
  DT_RETURN_IF_ERROR(CheckRoom("slot_rows", h.slot_rows, used, room.slot_experts.size()));
  DT_RETURN_IF_ERROR(CheckRoom("slot_rows", h.slot_rows, slots, room.slot_weights.size()));
  DT_RETURN_IF_ERROR(CheckRange("partial_rows", h.partial_rows, 0, rows * row.slots()));
  return CheckRoom("partial_rows", h.partial_rows, h.hidden_size, room.partials.size());
}

// Written so that NaN fails.
absl::Status CheckSampling(const SamplingParams& p, absl::string_view where) {
  if (!(p.temperature >= 0.0f && std::isfinite(p.temperature))) {
    return Bad(where, absl::StrCat("temperature is ", p.temperature));
  }
  if (!(p.top_p > 0.0f && p.top_p <= 1.0f)) return Bad(where, absl::StrCat("top_p is ", p.top_p));
  if (!(p.min_p >= 0.0f && p.min_p <= 1.0f)) return Bad(where, absl::StrCat("min_p is ", p.min_p));
  if (p.top_k < 0) return Bad(where, absl::StrCat("top_k is ", p.top_k));
  return absl::OkStatus();
}

// What of the frame's arrays the sequences before this one have used.
struct Used {
  int64_t rows = 0;
  int64_t blocks = 0;
  int64_t logit_rows = 0;
  int64_t adjustments = 0;
  int64_t masks = 0;
};

absl::Status CheckSequenceCounts(const SequenceStep& s, const StepHeader& header,
                                 const StepShape& shape, const Used& used) {
  DT_RETURN_IF_ERROR(CheckRange("num_rows", s.num_rows, 1, header.num_rows - used.rows));
  DT_RETURN_IF_ERROR(CheckRange("position", s.position, 0, shape.context_length));
  const int64_t end = int64_t{s.position} + s.num_rows;
  DT_RETURN_IF_ERROR(CheckRange("position + num_rows", end, 1, shape.context_length));
  const int64_t needed = (end + kKvBlockTokens - 1) / kKvBlockTokens;
  DT_RETURN_IF_ERROR(
      CheckRange("num_blocks", s.num_blocks, needed, shape.max_blocks_per_sequence()));
  DT_RETURN_IF_ERROR(
      CheckRange("num_blocks", s.num_blocks, needed, header.num_block_ids - used.blocks));
  DT_RETURN_IF_ERROR(CheckRange("num_logit_rows", s.num_logit_rows, 0, s.num_rows));
  return CheckRange("num_logit_rows", s.num_logit_rows, 0, header.num_logit_rows - used.logit_rows);
}

absl::Status CheckLogitRows(const SequenceStep& s, const StepFrame& frame, const Used& used) {
  int64_t low = used.rows;
  const int64_t last_row = used.rows + s.num_rows - 1;
  for (int32_t i = 0; i < s.num_logit_rows; ++i) {
    const int32_t row = frame.logit_rows[static_cast<size_t>(used.logit_rows + i)];
    DT_RETURN_IF_ERROR(CheckRange("logit row", row, low, last_row));
    low = int64_t{row} + 1;
  }
  if ((s.flags & SequenceStep::kSample) != 0 && low != last_row + 1) {
    return Bad("logit rows", "lack the last row of a sequence that is to be sampled");
  }
  return absl::OkStatus();
}

absl::Status CheckDraw(const SequenceStep& s, const StepHeader& header, const StepShape& shape,
                       const Used& used) {
  constexpr uint32_t kFlagsOfLogits = SequenceStep::kSample | SequenceStep::kReturnLogits |
                                      SequenceStep::kLogprobs | SequenceStep::kMasked;
  const bool of_hidden = (s.flags & SequenceStep::kReturnHidden) != 0;
  if (of_hidden ? s.flags != SequenceStep::kReturnHidden || s.num_adjustments != 0
                : (s.flags & ~kFlagsOfLogits) != 0) {
    return Bad("flags", absl::StrCat("are ", s.flags));
  }
  if (s.reserved != 0 || s.sampling.reserved != 0) return Bad("reserved", "is not zero");
  const int most_logprobs = (s.flags & SequenceStep::kLogprobs) != 0 ? kMaxTopLogprobs : 0;
  DT_RETURN_IF_ERROR(CheckRange("num_top_logprobs", s.num_top_logprobs, 0, most_logprobs));
  DT_RETURN_IF_ERROR(CheckRange("num_adjustments", s.num_adjustments, 0,
                                std::min(static_cast<int64_t>(MaxAdjustments(shape, 1)),
                                         header.num_adjustments - used.adjustments)));
  const bool masked = (s.flags & SequenceStep::kMasked) != 0;
  if (masked && used.masks >= header.num_masks) return Bad("masks", "are too few");
  // What is drawn from is changed in place; what is sent back must not be.
  if ((masked || s.num_adjustments > 0) && (s.flags & SequenceStep::kReturnLogits) != 0) {
    return Bad("flags", "ask for the logits of a sequence with adjustments or a mask");
  }
  return CheckSampling(s.sampling, "sampling");
}

// Written so that NaN fails.
absl::Status CheckAdjustment(const LogitAdjustment& a) {
  DT_RETURN_IF_ERROR(CheckRange("adjusted token", a.token, 0, INT32_MAX));
  if (!(a.bias < std::numeric_limits<float>::infinity())) {
    return Bad("adjustment", absl::StrCat("has bias ", a.bias));
  }
  if (!(a.scale > 0.0f && std::isfinite(a.scale))) {
    return Bad("adjustment", absl::StrCat("has scale ", a.scale));
  }
  return absl::OkStatus();
}

absl::Status CheckSequence(const SequenceStep& s, const StepFrame& frame, const StepShape& shape,
                           const Used& used) {
  DT_RETURN_IF_ERROR(CheckSequenceCounts(s, frame.header, shape, used));
  DT_RETURN_IF_ERROR(CheckDraw(s, frame.header, shape, used));
  return CheckLogitRows(s, frame, used);
}

}  // namespace

uint64_t MaxAdjustments(const StepShape& shape, uint64_t num_sequences) {
  return num_sequences * (static_cast<uint64_t>(shape.context_length) + kMaxExtraAdjustments);
}

uint64_t MaxLogprobs(const StepShape& shape) {
  return static_cast<uint64_t>(shape.max_logit_rows) * (1 + kMaxTopLogprobs);
}

uint64_t StepBytes(const StepHeader& h, const StepShape& shape, const RowShape& row) {
  return sizeof(StepHeader) + uint64_t{h.num_sequences} * sizeof(SequenceStep) +
         uint64_t{h.num_copies} * sizeof(BlockCopy) +
         sizeof(int32_t) * (uint64_t{h.num_block_ids} + h.num_rows +
                            2 * uint64_t{h.num_logit_rows} + h.num_segment_times) +
         sizeof(LogitAdjustment) * uint64_t{h.num_adjustments} +
         sizeof(uint32_t) * uint64_t{h.num_masks} * MaskWords(shape.vocab_size) +
         sizeof(float) * (uint64_t{h.hidden_rows_in_frame()} + h.partial_rows) * h.hidden_size +
         uint64_t{h.slot_rows} * SlotBytes(row);
}

uint64_t OutputBytes(const OutputHeader& h) {
  return sizeof(OutputHeader) + uint64_t{h.num_sequences} * sizeof(SequenceOutput) +
         sizeof(TokenLogprob) * uint64_t{h.num_logprobs} +
         uint64_t{h.num_segment_times} * sizeof(uint32_t) +
         sizeof(float) * uint64_t{h.num_logit_rows} * h.vocab_size +
         sizeof(float) * uint64_t{h.num_hidden_rows} * h.hidden_size;
}

absl::Status CheckStepHeader(const StepHeader& h, const StepShape& shape, const RowShape& row,
                             uint64_t epoch, const StepRoom& room, uint64_t message_bytes) {
  if (h.magic != kStepMagic) return Bad("magic", absl::StrCat("is ", h.magic));
  DT_RETURN_IF_ERROR(CheckEpoch(h.epoch, epoch));
  DT_RETURN_IF_ERROR(CheckRange("num_sequences", h.num_sequences, 1, shape.max_sequences));
  DT_RETURN_IF_ERROR(CheckRange("num_rows", h.num_rows, 1, shape.max_rows));
  const int64_t max_block_ids = int64_t{h.num_sequences} * shape.max_blocks_per_sequence();
  DT_RETURN_IF_ERROR(CheckRange("num_block_ids", h.num_block_ids, h.num_sequences, max_block_ids));
  DT_RETURN_IF_ERROR(CheckRange("num_logit_rows", h.num_logit_rows, 0, shape.max_logit_rows));
  DT_RETURN_IF_ERROR(CheckRange("num_logit_rows", h.num_logit_rows, 0, h.num_rows));
  DT_RETURN_IF_ERROR(CheckRange("num_adjustments", h.num_adjustments, 0,
                                static_cast<int64_t>(MaxAdjustments(shape, h.num_sequences))));
  DT_RETURN_IF_ERROR(
      CheckRange("num_masks", h.num_masks, 0, shape.vocab_size > 0 ? h.num_sequences : 0));
  DT_RETURN_IF_ERROR(
      CheckRange("flags", h.flags, 0, StepHeader::kStreamExperts | StepHeader::kHiddenOnLink));
  DT_RETURN_IF_ERROR(CheckRange("num_copies", h.num_copies, 0, shape.max_block_copies()));
  DT_RETURN_IF_ERROR(CheckRange("num_segment_times", h.num_segment_times, 0, kMaxRouteSegments));
  if (h.hidden_rows != 0) {
    if (h.hidden_rows != h.num_rows && h.hidden_rows != h.num_logit_rows) {
      return Bad("hidden_rows", absl::StrCat("is ", h.hidden_rows, ", allowed are 0, ", h.num_rows,
                                             " and ", h.num_logit_rows));
    }
    DT_RETURN_IF_ERROR(CheckRange("hidden_size", h.hidden_size, row.hidden_size, row.hidden_size));
    DT_RETURN_IF_ERROR(CheckRoom("hidden_rows", h.hidden_rows, h.hidden_size, room.hidden.size()));
  }
  DT_RETURN_IF_ERROR(CheckSlotRows(h, row, room));
  return CheckSize(StepBytes(h, shape, row), message_bytes);
}

absl::Status CheckStepBody(const StepFrame& frame, const StepShape& shape) {
  const StepHeader& h = frame.header;
  Used used;
  for (size_t i = 0; i < frame.sequences.size(); ++i) {
    const SequenceStep& s = frame.sequences[i];
    const absl::Status status = CheckSequence(s, frame, shape, used);
    if (!status.ok()) return Annotate(status, absl::StrCat("sequence ", i));
    used.rows += s.num_rows;
    used.blocks += s.num_blocks;
    used.logit_rows += s.num_logit_rows;
    used.adjustments += s.num_adjustments;
    used.masks += (s.flags & SequenceStep::kMasked) != 0 ? 1 : 0;
  }
  if (used.rows != h.num_rows || used.blocks != h.num_block_ids ||
      used.logit_rows != h.num_logit_rows) {
    return Bad("sequences",
               absl::StrCat("add up to ", used.rows, " rows, ", used.blocks, " blocks and ",
                            used.logit_rows, " logit rows, the header says ", h.num_rows, ", ",
                            h.num_block_ids, " and ", h.num_logit_rows));
  }
  if (used.adjustments != h.num_adjustments || used.masks != h.num_masks) {
    return Bad("sequences",
               absl::StrCat("add up to ", used.adjustments, " adjustments and ", used.masks,
                            " masks, the header says ", h.num_adjustments, " and ", h.num_masks));
  }
  for (const LogitAdjustment& adjustment : frame.adjustments) {
    DT_RETURN_IF_ERROR(CheckAdjustment(adjustment));
  }
  for (const int32_t target : frame.targets) {
    DT_RETURN_IF_ERROR(CheckRange("target", target, -1, INT32_MAX));
  }
  for (const int32_t block : frame.block_ids) {
    DT_RETURN_IF_ERROR(CheckRange("block id", block, 0, int64_t{shape.num_kv_blocks} - 1));
  }
  for (const BlockCopy& copy : frame.copies) {
    const int64_t last = int64_t{shape.num_blocks_in_all()} - 1;
    DT_RETURN_IF_ERROR(CheckRange("copied block", copy.from, 0, last));
    DT_RETURN_IF_ERROR(CheckRange("block copied to", copy.to, 0, last));
    if (copy.from == copy.to) return Bad("copy", absl::StrCat("of block ", copy.to, " to itself"));
  }
  for (const int32_t token : frame.tokens) {
    DT_RETURN_IF_ERROR(CheckRange("token", token, 0, INT32_MAX));
  }
  return absl::OkStatus();
}

absl::Status CheckSlotExperts(absl::Span<const int32_t> slot_experts, const RowShape& row) {
  const size_t used = static_cast<size_t>(row.experts_used);
  for (size_t i = 0; i < slot_experts.size(); ++i) {
    DT_RETURN_IF_ERROR(CheckRange("slot's expert", slot_experts[i], 0, row.num_experts - 1));
    for (size_t j = i - i % used; j < i; ++j) {
      if (slot_experts[j] == slot_experts[i]) {
        return Bad("slots",
                   absl::StrCat("of row ", i / used, " use expert ", slot_experts[i], " twice"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOutputHeader(const OutputHeader& h, const StepShape& shape, uint64_t epoch,
                               int vocab_size, int hidden_size, uint64_t message_bytes) {
  if (h.magic != kOutputMagic) return Bad("magic", absl::StrCat("is ", h.magic));
  DT_RETURN_IF_ERROR(CheckEpoch(h.epoch, epoch));
  DT_RETURN_IF_ERROR(CheckRange("num_sequences", h.num_sequences, 0, shape.max_sequences));
  DT_RETURN_IF_ERROR(CheckRange("num_logit_rows", h.num_logit_rows, 0, shape.max_logit_rows));
  DT_RETURN_IF_ERROR(
      CheckRange("num_logprobs", h.num_logprobs, 0, static_cast<int64_t>(MaxLogprobs(shape))));
  DT_RETURN_IF_ERROR(CheckRange("num_segment_times", h.num_segment_times, 0, kMaxRouteSegments));
  if (h.num_logit_rows != 0) {
    DT_RETURN_IF_ERROR(CheckRange("vocab_size", h.vocab_size, vocab_size, vocab_size));
  }
  DT_RETURN_IF_ERROR(CheckRange("num_hidden_rows", h.num_hidden_rows, 0,
                                int64_t{shape.max_logit_rows} - h.num_logit_rows));
  if (h.num_hidden_rows != 0) {
    DT_RETURN_IF_ERROR(CheckRange("hidden_size", h.hidden_size, hidden_size, hidden_size));
  }
  return CheckSize(OutputBytes(h), message_bytes);
}

absl::Status CheckOutputSequences(const StepOutput& output, int vocab_size) {
  int64_t rows = 0;
  int64_t hidden_rows = 0;
  int64_t logprobs = 0;
  for (const SequenceOutput& s : output.sequences) {
    const int64_t left = int64_t{output.header.num_logprobs} - logprobs;
    DT_RETURN_IF_ERROR(CheckRange("num_top_logprobs", s.num_top_logprobs, 0, kMaxTopLogprobs));
    DT_RETURN_IF_ERROR(
        CheckRange("num_logprob_rows", s.num_logprob_rows, 0, left / (1 + s.num_top_logprobs)));
    logprobs += int64_t{s.num_logprob_rows} * (1 + s.num_top_logprobs);
    DT_RETURN_IF_ERROR(CheckRange("token", s.token, -1, int64_t{vocab_size} - 1));
    DT_RETURN_IF_ERROR(CheckRange("num_logit_rows", s.num_logit_rows, 0,
                                  int64_t{output.header.num_logit_rows} - rows));
    rows += s.num_logit_rows;
    DT_RETURN_IF_ERROR(CheckRange("num_hidden_rows", s.num_hidden_rows, 0,
                                  int64_t{output.header.num_hidden_rows} - hidden_rows));
    hidden_rows += s.num_hidden_rows;
  }
  DT_RETURN_IF_ERROR(CheckRange("sum of num_hidden_rows", hidden_rows,
                                output.header.num_hidden_rows, output.header.num_hidden_rows));
  DT_RETURN_IF_ERROR(CheckRange("sum of num_logprob_rows", logprobs, output.header.num_logprobs,
                                output.header.num_logprobs));
  return CheckRange("sum of num_logit_rows", rows, output.header.num_logit_rows,
                    output.header.num_logit_rows);
}

absl::Status CheckLogprobs(const StepOutput& output, int vocab_size) {
  for (const TokenLogprob& entry : output.logprobs) {
    DT_RETURN_IF_ERROR(CheckRange("logprob's token", entry.token, -1, int64_t{vocab_size} - 1));
    if (!(entry.logprob <= 0.0f)) {
      return Bad("logprob", absl::StrCat("of token ", entry.token, " is ", entry.logprob));
    }
  }
  return absl::OkStatus();
}

}  // namespace dovetail::transport
