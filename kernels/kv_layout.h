// Where a token's keys and values lie, and how large one thread's attention scratch is.
//
// Functions of internal linkage on plain data: instruction-set units include this.
#ifndef DOVETAIL_KERNELS_KV_LAYOUT_H_
#define DOVETAIL_KERNELS_KV_LAYOUT_H_

#include <cstdint>

#include "kernels/ops.h"

namespace dovetail::kernels {

// Query vectors (rows x heads of one KV head's group) that attention works on at once.
constexpr int kQueryBatch = 48;

// Number of `values` rounded up to whole vectors of 16 lanes.
static inline int64_t RoundUpLanes(int64_t values) { return (values + 15) / 16 * 16; }

static inline int64_t KvBytesPerElement(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// Keys of one KV head in block `block`: [head_dim][kKvBlockTokens].
static inline uint8_t* KeyBlock(const KvCacheView& kv, int32_t block, int32_t kv_head) {
  const int64_t head_elements = int64_t{kv.head_dim} * kKvBlockTokens;
  return kv.data + block * kv.block_bytes + kv_head * head_elements * KvBytesPerElement(kv.type);
}

// Values of one KV head in block `block`: [kKvBlockTokens][head_dim].
static inline uint8_t* ValueBlock(const KvCacheView& kv, int32_t block, int32_t kv_head) {
  const int64_t head_elements = int64_t{kv.head_dim} * kKvBlockTokens;
  return KeyBlock(kv, block, kv_head) +
         kv.num_kv_heads * head_elements * KvBytesPerElement(kv.type);
}

// The sequence that row `row` of the step belongs to.
static inline const SequenceRows* FindSequence(const SequenceRows* sequences, int32_t count,
                                               int64_t row) {
  for (int32_t i = 0; i < count; ++i) {
    if (row < sequences[i].row_begin + sequences[i].num_rows) return &sequences[i];
  }
  return sequences + count - 1;
}

// The first of `num_keys` keys that the last one's query sees; window 0: all.
static inline int FirstKey(int num_keys, int window) {
  return window == 0 || num_keys < window ? 0 : num_keys - window;
}

// Parts of one thread's attention scratch, in floats.
struct AttentionScratch {
  float* scores;  // [kQueryBatch][kKvSplitTokens]
  float* split;   // [kQueryBatch][head_dim, whole vectors]: sum of this split
  float* total;   // the same: sum of the splits so far
  float* keys;    // [head_dim][kKvBlockTokens] of one block as f32
  float* values;  // [kKvBlockTokens][head_dim, whole vectors]
};

static inline int64_t AttentionScratchSize(int32_t head_dim) {
  const int64_t dim = RoundUpLanes(head_dim);
  return int64_t{kQueryBatch} * (kKvSplitTokens + 2 * dim) + 2 * dim * kKvBlockTokens;
}

static inline AttentionScratch CutAttentionScratch(float* scratch, int32_t head_dim) {
  const int64_t dim = RoundUpLanes(head_dim);
  AttentionScratch s;
  s.scores = scratch;
  s.split = s.scores + int64_t{kQueryBatch} * kKvSplitTokens;
  s.total = s.split + kQueryBatch * dim;
  s.keys = s.total + kQueryBatch * dim;
  s.values = s.keys + dim * kKvBlockTokens;
  return s;
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_KV_LAYOUT_H_
