// Hostile frames: any bytes as one message must be refused or leave a frame that keeps its bounds.
#include "tests/unit/transport/memory_channel.h"
#include "transport/step_frame.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dovetail;             // NOLINT
  using namespace dovetail::transport;  // NOLINT
  constexpr int kVocabSize = 10;
  constexpr RowShape kRow = {
      .hidden_size = 4, .num_experts = 9, .experts_used = 3, .shared_slot = true};
  const StepShape shape = {.max_rows = 16,
                           .max_sequences = 4,
                           .max_logit_rows = 8,
                           .context_length = 100,
                           .num_kv_blocks = 12};
  // A coverage-guided search does not find an epoch of 64 bits by itself: the input states it.
  uint64_t epoch = 0;
  if (size >= 16) std::memcpy(&epoch, data + 8, sizeof(epoch));

  dovetail::testing::MemoryReceiver step({data, data + size});
  StepFrame frame;
  std::vector<float> hidden(size_t{16} * kRow.hidden_size);
  std::vector<int32_t> slot_experts(size_t{16} * kRow.experts_used);
  std::vector<float> slot_weights(size_t{16} * kRow.slots());
  // Less than the most that can be sent: that it fits is checked as well.
  std::vector<float> partials(size_t{50} * kRow.hidden_size);
  const StepRoom room = {absl::MakeSpan(hidden), absl::MakeSpan(slot_experts),
                         absl::MakeSpan(slot_weights), absl::MakeSpan(partials)};
  if (ReceiveStep(step, shape, kRow, epoch, &frame, room, absl::ZeroDuration()).ok()) {
    const StepHeader& h = frame.header;
    DT_CHECK(h.slot_rows == 0 || h.slot_rows == h.num_rows);
    DT_CHECK_LE(h.partial_rows, h.slot_rows * kRow.slots());
    for (uint32_t i = 0; i < h.slot_rows * kRow.experts_used; ++i) {
      DT_CHECK(slot_experts[i] >= 0 && slot_experts[i] < kRow.num_experts);
    }
    size_t blocks = 0;
    for (const SequenceStep& s : frame.sequences) {
      DT_CHECK(s.position >= 0 && s.position + s.num_rows <= shape.context_length);
      DT_CHECK(s.num_blocks * kKvBlockTokens >= s.position + s.num_rows);
      blocks += static_cast<size_t>(s.num_blocks);
    }
    DT_CHECK_EQ(blocks, frame.block_ids.size());
    for (const int32_t block : frame.block_ids) DT_CHECK(block >= 0 && block < shape.num_kv_blocks);
    for (const int32_t row : frame.logit_rows) {
      DT_CHECK(row >= 0 && row < static_cast<int32_t>(frame.tokens.size()));
    }
  }

  dovetail::testing::MemoryReceiver back({data, data + size});
  StepOutput output;
  if (ReceiveOutput(back, shape, epoch, kVocabSize, kRow.hidden_size, &output, absl::ZeroDuration())
          .ok()) {
    DT_CHECK_EQ(output.logits.size(), size_t{output.header.num_logit_rows} * kVocabSize);
    DT_CHECK_EQ(output.hidden.size(),
                output.header.num_hidden_rows * static_cast<size_t>(kRow.hidden_size));
  }
  return 0;
}
