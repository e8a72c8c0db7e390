// Step frames: what travels along the route for one step, and what comes back.
//
// A frame is complete in itself: header, sequences, block tables, tokens and (after the first hop)
// the residual stream; between the parts of a layer with experts also the slots of the rows and
// what experts have made for them. Workers keep no per-sequence state besides the KV cache, so a
// step can be repeated by any incarnation of a worker. Layout on the wire: StepHeader,
// SequenceStep[num_sequences], BlockCopy[num_copies], int32 block_ids[num_block_ids], int32
// tokens[num_rows], int32 logit_rows[num_logit_rows], int32 targets[num_logit_rows],
// LogitAdjustment adjustments[num_adjustments], uint32 masks[num_masks *
// MaskWords(shape.vocab_size)], uint32 segment_us[num_segment_times], f32
// hidden[hidden_rows * hidden_size], int32 slot_experts[slot_rows * experts_used], f32
// slot_weights[slot_rows * slots], f32 partials[partial_rows * hidden_size]. All little-endian,
// same-host structs; docs/wire_format.md.
//
// The partials are the end of the message, and may come later than the rest of it: whoever makes
// them sends what the next worker can begin with, and that one waits for them when it needs them.
//
// Everything received is checked against the StepShape before it is used (counts, positions, block
// ids, row numbers, sizes that must add up to the message).
#ifndef DOVETAIL_TRANSPORT_STEP_FRAME_H_
#define DOVETAIL_TRANSPORT_STEP_FRAME_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/route.h"
#include "base/sampling_params.h"
#include "base/step_shape.h"
#include "transport/tensor_channel.h"

namespace dovetail::transport {

inline constexpr uint32_t kStepMagic = 0x33545344;    // "DST3"
inline constexpr uint32_t kOutputMagic = 0x54554f44;  // "DOUT"

struct StepHeader {
  enum Flags : uint32_t {
    // GPU workers compute what StreamedSegments() (base/route.h) are theirs in their owners' place.
    kStreamExperts = 1,
    // The residual stream comes by the link between two GPUs, and not in the frame.
    kHiddenOnLink = 2,
  };
  uint32_t magic = kStepMagic;
  uint32_t segment = 0;  // index into the route of the segment that is to compute now
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint32_t lane = 0;
  uint32_t num_sequences = 0;
  uint32_t num_rows = 0;  // tokens
  uint32_t num_block_ids = 0;
  uint32_t num_logit_rows = 0;  // rows whose logits are wanted, ascending
  uint32_t hidden_rows =
      0;  // rows of the residual stream that follow: 0, num_rows or num_logit_rows
  uint32_t hidden_size = 0;
  // 1 + index in the model's ops where a value stopped being finite; 0: none.
  uint32_t error_layer = 0;
  uint32_t num_copies = 0;
  uint32_t num_segment_times = 0;  // of the segments that were computed so far
  uint32_t slot_rows = 0;     // rows whose slots follow: 0, or num_rows inside a layer with experts
  uint32_t partial_rows = 0;  // rows that experts have made, one for a slot, not summed up yet
  uint32_t num_adjustments = 0;
  uint32_t num_masks = 0;
  uint32_t flags = 0;
  uint32_t reserved = 0;

  uint32_t hidden_rows_in_frame() const { return (flags & kHiddenOnLink) != 0 ? 0 : hidden_rows; }
};
static_assert(sizeof(StepHeader) == 88);

// One KV block's content goes to another place, in every attention layer, before the step computes
// anything there. Copies are made in order: a block may be read by one and written by the next.
struct BlockCopy {
  int32_t from = 0;  // ids below StepShape::num_blocks_in_all()
  int32_t to = 0;
  bool operator==(const BlockCopy&) const = default;
};

// What a sequence contributes to a step.
struct SequenceStep {
  enum Flags : uint32_t {
    kSample = 1,         // draw one token from the logits of its last row
    kReturnLogits = 2,   // send back the logits of its logit rows
    kLogprobs = 4,       // send back logprobs for each of its logit rows
    kMasked = 8,         // one of the masks is for the token that is drawn
    kReturnHidden = 16,  // alone: send back what the last norm makes of its logit rows, instead
  };
  uint64_t sequence_id = 0;
  int32_t num_rows = 0;        // tokens of this step
  int32_t position = 0;        // of its first token
  int32_t num_blocks = 0;      // entries of its block table
  int32_t num_logit_rows = 0;  // of this sequence
  uint32_t flags = 0;
  int32_t num_top_logprobs = 0;  // beside the target's, with kLogprobs
  int32_t num_adjustments = 0;   // applied in order before the token is drawn
  uint32_t reserved = 0;
  SamplingParams sampling;

  // All that is wanted of its logits is where the largest one is.
  bool TakesBestToken() const {
    return flags == kSample && num_adjustments == 0 && sampling.is_greedy();
  }
};
static_assert(sizeof(SequenceStep) == 72);

// One step on its way. The vectors are reserved from the StepShape once and reused.
struct StepFrame {
  StepHeader header;
  std::vector<SequenceStep> sequences;
  std::vector<BlockCopy> copies;
  std::vector<int32_t> block_ids;  // the sequences' tables one after the other
  std::vector<int32_t> tokens;
  std::vector<int32_t> logit_rows;  // row numbers, ascending
  std::vector<int32_t> targets;     // whose logprob a logit row is to tell; -1: of what is drawn
  std::vector<LogitAdjustment> adjustments;  // the sequences' one after the other
  std::vector<uint32_t> masks;               // those of kMasked sequences one after the other
  std::vector<uint32_t> segment_us;  // microseconds of each segment that was computed so far
  void Reserve(const StepShape& shape);
  void Clear();
};

struct OutputHeader {
  uint32_t magic = kOutputMagic;
  uint32_t lane = 0;
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint32_t num_sequences = 0;
  uint32_t num_logit_rows = 0;  // rows of logits that follow (those of kReturnLogits sequences)
  uint32_t vocab_size = 0;
  uint32_t error_layer = 0;   // as above
  uint32_t num_logprobs = 0;  // entries, of all sequences
  uint32_t num_segment_times = 0;
  uint32_t num_hidden_rows = 0;  // of kReturnHidden sequences
  uint32_t hidden_size = 0;
};
static_assert(sizeof(OutputHeader) == 56);

struct SequenceOutput {
  uint64_t sequence_id = 0;
  int32_t token = -1;            // the sampled token, -1 without kSample
  int32_t num_logit_rows = 0;    // rows of logits of this sequence
  int32_t num_logprob_rows = 0;  // rows of logprobs: the target's, then num_top_logprobs
  int32_t num_top_logprobs = 0;  // others, most likely first
  int32_t num_hidden_rows = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(SequenceOutput) == 32);

// The end of a step, back at the coordinator.
struct StepOutput {
  OutputHeader header;
  std::vector<SequenceOutput> sequences;
  std::vector<TokenLogprob> logprobs;  // the sequences' rows one after the other
  std::vector<uint32_t> segment_us;
  std::vector<float> logits;  // [num_logit_rows, vocab_size]
  std::vector<float> hidden;  // [num_hidden_rows, hidden_size]
  void Reserve(const StepShape& shape, int vocab_size, int hidden_size);
};

// The rows behind a frame, where they lie: as many as its header says.
struct StepRows {
  absl::Span<const float> hidden;          // [hidden_rows, hidden_size]
  absl::Span<const int32_t> slot_experts;  // [slot_rows, experts_used], in the router's order
  absl::Span<const float> slot_weights;    // [slot_rows, slots]
  // [partial_rows, hidden_size]: the shared expert's, by row; then those of the experts that were
  // computed so far, in the order of the route's ranges, by expert, by row.
  absl::Span<const float> partials;
};

// Where the rows of the next frame are to go: the room that there is for them.
struct StepRoom {
  absl::Span<float> hidden;
  absl::Span<int32_t> slot_experts;
  absl::Span<float> slot_weights;
  absl::Span<float> partials;
};

// Bytes of the largest frame and the largest output of a shape, for sizing rings.
// `between_experts`: of frames that travel between the parts of a layer with experts.
uint64_t MaxStepBytes(const StepShape& shape, const RowShape& row, bool between_experts);
uint64_t MaxOutputBytes(const StepShape& shape, int vocab_size, int hidden_size);

// Sends the frame with its rows, as many as its header says.
absl::Status SendStep(TensorSender& sender, const StepFrame& frame, const StepRows& rows,
                      absl::Duration timeout);
// The same without the partials, which are not there yet: SendPartials() sends them next.
absl::Status SendStepAhead(TensorSender& sender, const StepFrame& frame, const StepRows& rows,
                           absl::Duration timeout);
absl::Status SendPartials(TensorSender& sender, absl::Span<const float> partials,
                          absl::Duration timeout);

// The partials of a frame whose other parts were received. A value that refers to the receiver,
// which receives nothing else before Receive().
class ComingPartials {
 public:
  ComingPartials() = default;  // none
  ComingPartials(TensorReceiver* receiver, absl::Span<float> room, absl::Duration timeout)
      : receiver_(receiver), room_(room), timeout_(timeout) {}
  // Waits for them, and ends the message; nothing where that was done before.
  absl::Status Receive();

 private:
  TensorReceiver* receiver_ = nullptr;
  absl::Span<float> room_;
  absl::Duration timeout_;
};

// Receives the next frame into `frame`, its rows into `room`, but for the partials: those are in
// `room` after partials->Receive(). `timeout`: of each wait for the peer.
absl::Status ReceiveStepAhead(TensorReceiver& receiver, const StepShape& shape, const RowShape& row,
                              uint64_t epoch, StepFrame* frame, const StepRoom& room,
                              absl::Duration timeout, ComingPartials* partials);
// The same with the partials.
absl::Status ReceiveStep(TensorReceiver& receiver, const StepShape& shape, const RowShape& row,
                         uint64_t epoch, StepFrame* frame, const StepRoom& room,
                         absl::Duration timeout);

absl::Status SendOutput(TensorSender& sender, const StepOutput& output, absl::Duration timeout);
// As SendOutput, with rows that lie apart: `logits` and `hidden` have one pointer per row.
// `pieces` is a list to work with; with room for OutputPieces() it never grows.
inline size_t OutputPieces(const StepShape& shape) {
  return 4 + static_cast<size_t>(shape.max_logit_rows);
}
absl::Status SendOutputRows(TensorSender& sender, const OutputHeader& header,
                            absl::Span<const SequenceOutput> sequences,
                            absl::Span<const TokenLogprob> logprobs,
                            absl::Span<const uint32_t> segment_us,
                            absl::Span<const float* const> logits,
                            absl::Span<const float* const> hidden, std::vector<ConstBytes>* pieces,
                            absl::Duration timeout);
absl::Status ReceiveOutput(TensorReceiver& receiver, const StepShape& shape, uint64_t epoch,
                           int vocab_size, int hidden_size, StepOutput* output,
                           absl::Duration timeout);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_STEP_FRAME_H_
