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
static inline constexpr int64_t RoundUpLanes(int64_t values) { return (values + 15) / 16 * 16; }

// The vectors of one KV head in one block, one per token. kByToken: [kKvBlockTokens][dim], else
// [dim][kKvBlockTokens]; with kQ8_0 the scales follow.
struct KvPart {
  uint8_t* data;
  KvType type;
  int32_t dim;
  bool by_token;
};

// Of block `block` the part that begins `offset` bytes after the block's first, and is `bytes`
// long.
static inline constexpr uint8_t* PartOfBlock(const KvCacheView& kv, int32_t block, int64_t offset,
                                             int64_t bytes) {
  if (kv.num_blocks == 0) return kv.data + block * kv.block_bytes + offset;
  return kv.data + offset * kv.num_blocks + block * bytes;
}

static inline constexpr KvPart KeyPart(const KvCacheView& kv, int32_t block, int32_t kv_head) {
  const KvShape& shape = kv.shape;
  const int64_t bytes = KvPartBytes(kv.type, shape.key_dim);
  uint8_t* data = PartOfBlock(kv, block, kv_head * bytes, bytes);
  return {data, kv.type, shape.key_dim, shape.layout == KvLayout::kLatent};
}

// With kLatent the vectors of the keys, which are longer than a value.
static inline constexpr KvPart ValuePart(const KvCacheView& kv, int32_t block, int32_t kv_head) {
  const KvShape& shape = kv.shape;
  if (shape.layout == KvLayout::kLatent) return KeyPart(kv, block, kv_head);
  const int64_t bytes = KvPartBytes(kv.type, shape.value_dim);
  const int64_t keys = shape.num_heads * KvPartBytes(kv.type, shape.key_dim);
  uint8_t* data = PartOfBlock(kv, block, keys + kv_head * bytes, bytes);
  return {data, kv.type, shape.value_dim, true};
}

// Where element d of the token in slot `slot` lies, in elements.
static inline constexpr int64_t ElementIndex(const KvPart& part, int slot, int64_t d) {
  return part.by_token ? int64_t{slot} * part.dim + d : d * kKvBlockTokens + slot;
}

// The f16 that scales it, of kQ8_0.
static inline constexpr uint8_t* ScaleOf(const KvPart& part, int slot, int64_t d) {
  const int64_t blocks = (part.dim + kKvScaleElements - 1) / kKvScaleElements;
  const int64_t block = d / kKvScaleElements;
  const int64_t index = part.by_token ? slot * blocks + block : block * kKvBlockTokens + slot;
  return part.data + int64_t{kKvBlockTokens} * part.dim + 2 * index;
}

// A number of this magnitude or more is infinite once it is stored.
static inline constexpr float StoredLimit(KvType type) {
  switch (type) {
    case KvType::kF32:
      break;
    case KvType::kF16:
      return 65520.0f;
    case KvType::kBF16:
      return 0x1.ffp+127f;
    case KvType::kQ8_0:
      return 65520.0f * 127.0f;
  }
  return __builtin_inff();
}

// The sequence that row `row` of the step belongs to.
static inline constexpr const SequenceRows* FindSequence(const SequenceRows* sequences,
                                                         int32_t count, int64_t row) {
  for (int32_t i = 0; i < count; ++i) {
    if (row < sequences[i].row_begin + sequences[i].num_rows) return &sequences[i];
  }
  return sequences + count - 1;
}

// The first of `num_keys` keys that the last one's query sees; window 0: all.
static inline constexpr int FirstKey(int num_keys, int window) {
  return window == 0 || num_keys < window ? 0 : num_keys - window;
}

// Parts of one thread's attention scratch, in floats.
struct AttentionScratch {
  float* scores;   // [kQueryBatch][kKvSplitTokens]
  float* split;    // [kQueryBatch][value_dim, whole vectors]: sum of this split
  float* total;    // the same: sum of the splits so far
  float* keys;     // [key_dim][kKvBlockTokens] of one block as f32; with kLatent half a block
  float* values;   // [kKvBlockTokens][value_dim, whole vectors]
  float* queries;  // [kQueryBatch][key_dim], transposed; with kLatent alone
};

static inline constexpr int64_t AttentionScratchSize(const KvShape& shape) {
  const int64_t dim = RoundUpLanes(shape.value_dim);
  const int64_t transposed = shape.layout == KvLayout::kLatent ? RoundUpLanes(shape.key_dim) : 0;
  return int64_t{kQueryBatch} * (kKvSplitTokens + 2 * dim + transposed) +
         (RoundUpLanes(shape.key_dim) + dim) * kKvBlockTokens;
}

static inline constexpr AttentionScratch CutAttentionScratch(float* scratch, const KvShape& shape) {
  const int64_t dim = RoundUpLanes(shape.value_dim);
  AttentionScratch s;
  s.scores = scratch;
  s.split = s.scores + int64_t{kQueryBatch} * kKvSplitTokens;
  s.total = s.split + kQueryBatch * dim;
  s.keys = s.total + kQueryBatch * dim;
  s.values = s.keys + RoundUpLanes(shape.key_dim) * kKvBlockTokens;
  s.queries = s.values + dim * kKvBlockTokens;
  return s;
}

// What a split gives for one head, until splits are merged: its maximum, its l, and from kPartSum
// on its sum, in whole vectors.
constexpr int kPartSum = 16;
static inline constexpr int64_t AttentionPartSize(const KvShape& shape) {
  return kPartSum + RoundUpLanes(shape.value_dim);
}
static inline constexpr float* PartOf(const AttentionArgs& args, int64_t task, int64_t split,
                                      int head) {
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t index = (task - args.first_row * groups) * args.part_splits + split;
  return args.parts + (index * args.heads_per_task + head) * AttentionPartSize(args.kv.shape);
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_KV_LAYOUT_H_
