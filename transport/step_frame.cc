#include "transport/step_frame.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "transport/step_frame_check.h"

namespace dovetail::transport {
namespace {

template <typename T>
ConstBytes BytesOf(absl::Span<const T> items) {
  return {items.data(), items.size() * sizeof(T)};
}

template <typename T>
absl::Status ReadArray(TensorReceiver& receiver, size_t count, std::vector<T>* out,
                       absl::Duration timeout) {
  out->resize(count);
  return receiver.Read(out->data(), count * sizeof(T), timeout);
}

template <typename T>
absl::Status ReadInto(TensorReceiver& receiver, absl::Span<T> room, size_t count,
                      absl::Duration timeout) {
  DT_CHECK_LE(count, room.size());
  return receiver.Read(room.data(), count * sizeof(T), timeout);
}

// Reads the header, the first thing in a message.
template <typename Header>
absl::Status ReadHeader(TensorReceiver& receiver, size_t message_bytes, Header* header,
                        absl::Duration timeout) {
  if (message_bytes < sizeof(Header)) {
    return absl::InternalError(absl::StrCat("malformed frame: ", message_bytes,
                                            " bytes, its header alone has ", sizeof(Header)));
  }
  return receiver.Read(header, sizeof(Header), timeout);
}

// Reads the body of the begun message up to the partials; what it leaves unread after an error is
// skipped by the caller.
absl::Status ReadStepBody(TensorReceiver& receiver, size_t message_bytes, const StepShape& shape,
                          const RowShape& row, uint64_t epoch, StepFrame* frame,
                          const StepRoom& room, absl::Duration timeout) {
  StepHeader& h = frame->header;
  DT_RETURN_IF_ERROR(ReadHeader(receiver, message_bytes, &h, timeout));
  DT_RETURN_IF_ERROR(CheckStepHeader(h, shape, row, epoch, room, message_bytes));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_sequences, &frame->sequences, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_copies, &frame->copies, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_block_ids, &frame->block_ids, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_rows, &frame->tokens, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_logit_rows, &frame->logit_rows, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_logit_rows, &frame->targets, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_adjustments, &frame->adjustments, timeout));
  const size_t mask_words = size_t{h.num_masks} * static_cast<size_t>(MaskWords(shape.vocab_size));
  DT_RETURN_IF_ERROR(ReadArray(receiver, mask_words, &frame->masks, timeout));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_segment_times, &frame->segment_us, timeout));
  DT_RETURN_IF_ERROR(CheckStepBody(*frame, shape));
  const size_t hidden = size_t{h.hidden_rows_in_frame()} * h.hidden_size;
  DT_RETURN_IF_ERROR(ReadInto(receiver, room.hidden, hidden, timeout));
  if (h.slot_rows == 0) return absl::OkStatus();
  const size_t experts = size_t{h.slot_rows} * static_cast<size_t>(row.experts_used);
  const size_t weights = size_t{h.slot_rows} * static_cast<size_t>(row.slots());
  DT_RETURN_IF_ERROR(ReadInto(receiver, room.slot_experts, experts, timeout));
  DT_RETURN_IF_ERROR(CheckSlotExperts(room.slot_experts.first(experts), row));
  return ReadInto(receiver, room.slot_weights, weights, timeout);
}

absl::Status ReadOutputBody(TensorReceiver& receiver, size_t message_bytes, const StepShape& shape,
                            uint64_t epoch, int vocab_size, int hidden_size, StepOutput* output,
                            absl::Duration timeout) {
  OutputHeader& h = output->header;
  DT_RETURN_IF_ERROR(ReadHeader(receiver, message_bytes, &h, timeout));
  DT_RETURN_IF_ERROR(CheckOutputHeader(h, shape, epoch, vocab_size, hidden_size, message_bytes));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_sequences, &output->sequences, timeout));
  DT_RETURN_IF_ERROR(CheckOutputSequences(*output, vocab_size));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_logprobs, &output->logprobs, timeout));
  DT_RETURN_IF_ERROR(CheckLogprobs(*output, vocab_size));
  DT_RETURN_IF_ERROR(ReadArray(receiver, h.num_segment_times, &output->segment_us, timeout));
  const size_t logits = size_t{h.num_logit_rows} * h.vocab_size;
  DT_RETURN_IF_ERROR(ReadArray(receiver, logits, &output->logits, timeout));
  return ReadArray(receiver, size_t{h.num_hidden_rows} * h.hidden_size, &output->hidden, timeout);
}

size_t PartialFloats(const StepHeader& h) { return size_t{h.partial_rows} * h.hidden_size; }

// The frame with these of its partials; the others follow.
absl::Status SendWith(absl::Span<const float> partials, TensorSender& sender,
                      const StepFrame& frame, const StepRows& rows, absl::Duration timeout) {
  const StepHeader& h = frame.header;
  DT_CHECK_EQ(frame.sequences.size(), h.num_sequences);
  DT_CHECK_EQ(frame.copies.size(), h.num_copies);
  DT_CHECK_EQ(frame.segment_us.size(), h.num_segment_times);
  DT_CHECK_EQ(frame.block_ids.size(), h.num_block_ids);
  DT_CHECK_EQ(frame.tokens.size(), h.num_rows);
  DT_CHECK_EQ(frame.logit_rows.size(), h.num_logit_rows);
  DT_CHECK_EQ(frame.targets.size(), h.num_logit_rows);
  DT_CHECK_EQ(frame.adjustments.size(), h.num_adjustments);
  DT_CHECK_EQ(rows.hidden.size(), size_t{h.hidden_rows_in_frame()} * h.hidden_size);
  DT_CHECK_EQ(rows.slot_experts.empty(), h.slot_rows == 0);
  const std::array<ConstBytes, 14> pieces = {
      ConstBytes{&h, sizeof(h)},
      BytesOf(absl::MakeConstSpan(frame.sequences)),
      BytesOf(absl::MakeConstSpan(frame.copies)),
      BytesOf(absl::MakeConstSpan(frame.block_ids)),
      BytesOf(absl::MakeConstSpan(frame.tokens)),
      BytesOf(absl::MakeConstSpan(frame.logit_rows)),
      BytesOf(absl::MakeConstSpan(frame.targets)),
      BytesOf(absl::MakeConstSpan(frame.adjustments)),
      BytesOf(absl::MakeConstSpan(frame.masks)),
      BytesOf(absl::MakeConstSpan(frame.segment_us)),
      BytesOf(rows.hidden),
      BytesOf(rows.slot_experts),
      BytesOf(rows.slot_weights),
      BytesOf(partials),
  };
  const size_t rest = PartialFloats(h) - partials.size();
  return sender.SendBegin(pieces, rest * sizeof(float), timeout);
}

// Takes the rest of the message out of the channel. What went wrong before says more than what the
// skipping says.
absl::Status EndMessage(TensorReceiver& receiver, const absl::Status& status,
                        absl::Duration timeout) {
  const absl::Status ended = receiver.End(timeout);
  return status.ok() ? ended : status;
}

}  // namespace

void StepFrame::Reserve(const StepShape& shape) {
  sequences.reserve(shape.max_sequences);
  block_ids.reserve(size_t{static_cast<uint32_t>(shape.max_sequences)} *
                    shape.max_blocks_per_sequence());
  copies.reserve(shape.max_block_copies());
  tokens.reserve(shape.max_rows);
  logit_rows.reserve(shape.max_logit_rows);
  targets.reserve(shape.max_logit_rows);
  adjustments.reserve(MaxAdjustments(shape, shape.max_sequences));
  masks.reserve(static_cast<size_t>(shape.max_sequences) * MaskWords(shape.vocab_size));
  segment_us.reserve(kMaxRouteSegments);
}

void StepFrame::Clear() {
  header = StepHeader();
  sequences.clear();
  copies.clear();
  block_ids.clear();
  tokens.clear();
  logit_rows.clear();
  targets.clear();
  adjustments.clear();
  masks.clear();
  segment_us.clear();
}

void StepOutput::Reserve(const StepShape& shape, int vocab_size, int hidden_size) {
  sequences.reserve(shape.max_sequences);
  logprobs.reserve(MaxLogprobs(shape));
  segment_us.reserve(kMaxRouteSegments);
  logits.reserve(static_cast<size_t>(shape.max_logit_rows) * vocab_size);
  hidden.reserve(static_cast<size_t>(shape.max_logit_rows) * hidden_size);
}

uint64_t MaxStepBytes(const StepShape& shape, const RowShape& row, bool between_experts) {
  StepHeader h;
  h.num_sequences = shape.max_sequences;
  h.num_copies = shape.max_block_copies();
  h.num_segment_times = kMaxRouteSegments;
  h.num_rows = shape.max_rows;
  h.num_block_ids = shape.max_sequences * shape.max_blocks_per_sequence();
  h.num_logit_rows = shape.max_logit_rows;
  h.num_adjustments = static_cast<uint32_t>(MaxAdjustments(shape, shape.max_sequences));
  h.num_masks = shape.vocab_size > 0 ? shape.max_sequences : 0;
  h.hidden_rows = shape.max_rows;
  h.hidden_size = row.hidden_size;
  if (between_experts) {
    h.slot_rows = shape.max_rows;
    h.partial_rows = shape.max_rows * static_cast<uint32_t>(row.slots());
  }
  return StepBytes(h, shape, row);
}

uint64_t MaxOutputBytes(const StepShape& shape, int vocab_size, int hidden_size) {
  OutputHeader h;
  h.num_sequences = shape.max_sequences;
  h.num_segment_times = kMaxRouteSegments;
  // A logit row comes back as one or the other.
  h.num_logit_rows = shape.max_logit_rows;
  h.vocab_size = std::max(vocab_size, hidden_size);
  h.num_logprobs = static_cast<uint32_t>(MaxLogprobs(shape));
  return OutputBytes(h);
}

absl::Status SendStep(TensorSender& sender, const StepFrame& frame, const StepRows& rows,
                      absl::Duration timeout) {
  DT_CHECK_EQ(rows.partials.size(), PartialFloats(frame.header));
  return SendWith(rows.partials, sender, frame, rows, timeout);
}

absl::Status SendStepAhead(TensorSender& sender, const StepFrame& frame, const StepRows& rows,
                           absl::Duration timeout) {
  return SendWith({}, sender, frame, rows, timeout);
}

absl::Status SendPartials(TensorSender& sender, absl::Span<const float> partials,
                          absl::Duration timeout) {
  const ConstBytes piece = BytesOf(partials);
  return sender.SendRest({&piece, 1}, timeout);
}

absl::Status ComingPartials::Receive() {
  if (receiver_ == nullptr) return absl::OkStatus();
  TensorReceiver& receiver = *receiver_;
  receiver_ = nullptr;
  return EndMessage(receiver, ReadInto(receiver, room_, room_.size(), timeout_), timeout_);
}

absl::Status ReceiveStepAhead(TensorReceiver& receiver, const StepShape& shape, const RowShape& row,
                              uint64_t epoch, StepFrame* frame, const StepRoom& room,
                              absl::Duration timeout, ComingPartials* partials) {
  frame->Clear();
  DT_ASSIGN_OR_RETURN(const size_t message_bytes, receiver.Begin(timeout));
  const absl::Status status =
      ReadStepBody(receiver, message_bytes, shape, row, epoch, frame, room, timeout);
  const StepHeader& h = frame->header;
  if (!status.ok() || h.partial_rows == 0) return EndMessage(receiver, status, timeout);
  *partials = {&receiver, room.partials.first(PartialFloats(h)), timeout};
  return absl::OkStatus();
}

absl::Status ReceiveStep(TensorReceiver& receiver, const StepShape& shape, const RowShape& row,
                         uint64_t epoch, StepFrame* frame, const StepRoom& room,
                         absl::Duration timeout) {
  ComingPartials partials;
  DT_RETURN_IF_ERROR(
      ReceiveStepAhead(receiver, shape, row, epoch, frame, room, timeout, &partials));
  return partials.Receive();
}

absl::Status SendOutput(TensorSender& sender, const StepOutput& output, absl::Duration timeout) {
  const OutputHeader& h = output.header;
  DT_CHECK_EQ(output.sequences.size(), h.num_sequences);
  DT_CHECK_EQ(output.logprobs.size(), h.num_logprobs);
  DT_CHECK_EQ(output.segment_us.size(), h.num_segment_times);
  DT_CHECK_EQ(output.logits.size(), size_t{h.num_logit_rows} * h.vocab_size);
  DT_CHECK_EQ(output.hidden.size(), size_t{h.num_hidden_rows} * h.hidden_size);
  const std::array<ConstBytes, 6> pieces = {
      ConstBytes{&h, sizeof(h)},
      BytesOf(absl::MakeConstSpan(output.sequences)),
      BytesOf(absl::MakeConstSpan(output.logprobs)),
      BytesOf(absl::MakeConstSpan(output.segment_us)),
      BytesOf(absl::MakeConstSpan(output.logits)),
      BytesOf(absl::MakeConstSpan(output.hidden)),
  };
  return sender.Send(pieces, timeout);
}

absl::Status SendOutputRows(TensorSender& sender, const OutputHeader& header,
                            absl::Span<const SequenceOutput> sequences,
                            absl::Span<const TokenLogprob> logprobs,
                            absl::Span<const uint32_t> segment_us,
                            absl::Span<const float* const> logits,
                            absl::Span<const float* const> hidden, std::vector<ConstBytes>* pieces,
                            absl::Duration timeout) {
  DT_CHECK_EQ(sequences.size(), header.num_sequences);
  DT_CHECK_EQ(logprobs.size(), header.num_logprobs);
  DT_CHECK_EQ(segment_us.size(), header.num_segment_times);
  DT_CHECK_EQ(logits.size(), header.num_logit_rows);
  DT_CHECK_EQ(hidden.size(), header.num_hidden_rows);
  pieces->clear();
  pieces->push_back({&header, sizeof(header)});
  pieces->push_back(BytesOf(sequences));
  pieces->push_back(BytesOf(logprobs));
  pieces->push_back(BytesOf(segment_us));
  for (const float* row : logits) pieces->push_back({row, header.vocab_size * sizeof(float)});
  for (const float* row : hidden) pieces->push_back({row, header.hidden_size * sizeof(float)});
  return sender.Send(*pieces, timeout);
}

absl::Status ReceiveOutput(TensorReceiver& receiver, const StepShape& shape, uint64_t epoch,
                           int vocab_size, int hidden_size, StepOutput* output,
                           absl::Duration timeout) {
  output->sequences.clear();
  output->logprobs.clear();
  output->logits.clear();
  output->hidden.clear();
  output->segment_us.clear();
  DT_ASSIGN_OR_RETURN(const size_t message_bytes, receiver.Begin(timeout));
  return EndMessage(receiver,
                    ReadOutputBody(receiver, message_bytes, shape, epoch, vocab_size, hidden_size,
                                   output, timeout),
                    timeout);
}

}  // namespace dovetail::transport
