// StepShape: the limits of one step, from which every buffer of every process is sized, so that no
// two settings can disagree. RowShape: what a model's rows are on the way between workers. Plain
// data.
#ifndef DOVETAIL_BASE_STEP_SHAPE_H_
#define DOVETAIL_BASE_STEP_SHAPE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/gpu_links.h"
#include "base/kv_cache.h"

namespace dovetail {

struct StepShape {
  int32_t max_rows = 0;         // tokens of one step, all sequences together
  int32_t max_sequences = 0;    // sequences of one step
  int32_t max_logit_rows = 0;   // rows of logits that one step may ask for
  int32_t context_length = 0;   // tokens of one sequence
  int32_t num_kv_blocks = 0;    // blocks of kKvBlockTokens tokens, shared by all sequences
  int32_t num_swap_blocks = 0;  // more of them, where preempted sequences keep what they computed
  KvType kv_type = KvType::kF16;
  int32_t vocab_size = 0;  // tokens of a mask; 0: steps have no masks
  // Of each of the two buffers through which a GPU worker streams the experts of CPU workers for
  // steps of many rows (transport::StepHeader::kStreamExperts); 0: it never does.
  int64_t stream_bytes = 0;
  // Between GPU workers, and through how many places each: as many as there are lanes.
  GpuLinks gpu_links = GpuLinks::kHost;
  int32_t link_slots = 1;
  std::vector<KvType> layer_kv_types;  // by layer; of the layers beyond it: kv_type

  KvType KvTypeOf(int32_t layer) const {
    const auto index = static_cast<size_t>(layer);
    return index < layer_kv_types.size() ? layer_kv_types[index] : kv_type;
  }
  int32_t max_blocks_per_sequence() const {
    return (context_length + kKvBlockTokens - 1) / kKvBlockTokens;
  }
  // Block ids: those of the KV cache, then those of the swap area. Only copies name the latter.
  int32_t num_blocks_in_all() const { return num_kv_blocks + num_swap_blocks; }
  // Blocks that one step may copy: two sequences of the longest context go out or come back, and
  // every sequence may begin with the copy of a block that it shares in part.
  int32_t max_block_copies() const { return 2 * max_blocks_per_sequence() + max_sequences; }
  bool operator==(const StepShape&) const = default;
};

struct RowShape {
  int32_t hidden_size = 0;   // of the residual stream, and of what an expert makes
  int32_t num_experts = 0;   // 0: no layer has any, and then all below are 0
  int32_t experts_used = 0;  // by a row in a layer; each of them is a slot
  bool shared_slot = false;  // there is one more, the last, for the shared expert

  int32_t slots() const { return experts_used + (shared_slot ? 1 : 0); }
  bool operator==(const RowShape&) const = default;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_STEP_SHAPE_H_
