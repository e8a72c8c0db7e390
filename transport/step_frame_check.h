// The checks on frames and outputs that another process sent. Pure functions; thread-safe.
//
// Each returns kInternal with the field, what it holds and what is allowed, or kAborted for another
// epoch. Header checks come first: they bound every count, so that sizes computed from them cannot
// overflow and the vectors read after them stay within what was reserved.
#ifndef DOVETAIL_TRANSPORT_STEP_FRAME_CHECK_H_
#define DOVETAIL_TRANSPORT_STEP_FRAME_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "transport/step_frame.h"

namespace dovetail::transport {

// The message's bytes as its (checked) header announces them.
uint64_t StepBytes(const StepHeader& header, const StepShape& shape, const RowShape& row);
uint64_t OutputBytes(const OutputHeader& header);

// The most adjustments that `num_sequences` sequences may have, and entries of logprobs in an
// output.
uint64_t MaxAdjustments(const StepShape& shape, uint64_t num_sequences);
uint64_t MaxLogprobs(const StepShape& shape);

// `room`: what the receiver can take.
absl::Status CheckStepHeader(const StepHeader& header, const StepShape& shape, const RowShape& row,
                             uint64_t epoch, const StepRoom& room, uint64_t message_bytes);
// Sequences, blocks, tokens, logit rows and adjustments of a frame whose header was checked.
absl::Status CheckStepBody(const StepFrame& frame, const StepShape& shape);
// Experts of whole rows: each there, and none twice in a row.
absl::Status CheckSlotExperts(absl::Span<const int32_t> slot_experts, const RowShape& row);

absl::Status CheckOutputHeader(const OutputHeader& header, const StepShape& shape, uint64_t epoch,
                               int vocab_size, int hidden_size, uint64_t message_bytes);
absl::Status CheckOutputSequences(const StepOutput& output, int vocab_size);
absl::Status CheckLogprobs(const StepOutput& output, int vocab_size);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_STEP_FRAME_CHECK_H_
