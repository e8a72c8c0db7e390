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
  constexpr int kHiddenSize = 4;
  constexpr int kVocabSize = 10;
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
  std::vector<float> hidden(size_t{16} * kHiddenSize);
  if (ReceiveStep(step, shape, epoch, kHiddenSize, &frame, absl::MakeSpan(hidden),
                  absl::ZeroDuration())
          .ok()) {
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
  if (ReceiveOutput(back, shape, epoch, kVocabSize, &output, absl::ZeroDuration()).ok()) {
    DT_CHECK_EQ(output.logits.size(), size_t{output.header.num_logit_rows} * kVocabSize);
  }
  return 0;
}
