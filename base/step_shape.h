// StepShape: the limits of one step, from which every buffer of every process is sized, so that no
// two settings can disagree. KvType: how keys and values are stored. Plain data.
#ifndef DOVETAIL_BASE_STEP_SHAPE_H_
#define DOVETAIL_BASE_STEP_SHAPE_H_

#include <cstdint>

namespace dovetail {

inline constexpr int kKvBlockTokens = 32;   // tokens of one KV block
inline constexpr int kKvSplitTokens = 256;  // attention's fixed split, by absolute position

enum class KvType : uint32_t { kF32 = 0, kF16 = 1 };

inline int64_t KvElementBytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

struct StepShape {
  int32_t max_rows = 0;        // tokens of one step, all sequences together
  int32_t max_sequences = 0;   // sequences of one step
  int32_t max_logit_rows = 0;  // rows of logits that one step may ask for
  int32_t context_length = 0;  // tokens of one sequence
  int32_t num_kv_blocks = 0;   // blocks of kKvBlockTokens tokens, shared by all sequences
  KvType kv_type = KvType::kF16;
  int32_t vocab_size = 0;  // tokens of a mask; 0: steps have no masks

  int32_t max_blocks_per_sequence() const {
    return (context_length + kKvBlockTokens - 1) / kKvBlockTokens;
  }
  bool operator==(const StepShape&) const = default;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_STEP_SHAPE_H_
