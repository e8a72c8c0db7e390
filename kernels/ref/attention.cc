#include <cmath>
#include <cstring>
#include <limits>

#include "base/float_convert.h"
#include "kernels/kv_layout.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {
namespace {

void StoreElement(KvType type, uint8_t* base, int64_t i, float v) {
  if (type == KvType::kF32) {
    std::memcpy(base + 4 * i, &v, 4);
  } else {
    const uint16_t h = F32ToF16(v);
    std::memcpy(base + 2 * i, &h, 2);
  }
}

float LoadElement(KvType type, const uint8_t* base, int64_t i) {
  if (type == KvType::kF32) {
    float f;
    std::memcpy(&f, base + 4 * i, 4);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, base + 2 * i, 2);
  return F16ToF32(h);
}

// The state of one query over the keys seen so far: out = sum / l, all relative to exp(max).
struct Running {
  float max;
  float l;
  float* sum;  // [head_dim]
};

// Keys [first, end) of a sequence, all inside one split.
Running AttendSplit(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                    const float* q, int first, int end, const AttentionScratch& scratch) {
  const KvCacheView& kv = args.kv;
  Running split = {-std::numeric_limits<float>::infinity(), 0.0f, scratch.split};
  for (int position = first; position < end; ++position) {
    const uint8_t* keys = KeyBlock(kv, sequence.blocks[position / kKvBlockTokens], kv_head);
    float score = 0.0f;
    for (int d = 0; d < kv.head_dim; ++d) {
      const int64_t i = int64_t{d} * kKvBlockTokens + position % kKvBlockTokens;
      score = std::fma(q[d], LoadElement(kv.type, keys, i), score);
    }
    score *= args.scale;
    scratch.scores[position - first] = score;
    split.max = score > split.max ? score : split.max;
  }
  float partial[16] = {};
  for (int d = 0; d < kv.head_dim; ++d) split.sum[d] = 0.0f;
  for (int position = first; position < end; ++position) {
    const uint8_t* values = ValueBlock(kv, sequence.blocks[position / kKvBlockTokens], kv_head);
    const float p = Exp(scratch.scores[position - first] - split.max);
    partial[position % 16] += p;
    for (int d = 0; d < kv.head_dim; ++d) {
      const int64_t i = int64_t{position % kKvBlockTokens} * kv.head_dim + d;
      split.sum[d] = std::fma(p, LoadElement(kv.type, values, i), split.sum[d]);
    }
  }
  split.l = TreeSum(partial, 16);
  return split;
}

void Merge(const Running& split, int head_dim, Running* total) {
  const float max = split.max > total->max ? split.max : total->max;
  const float keep = Exp(total->max - max);
  const float add = Exp(split.max - max);
  total->max = max;
  total->l = std::fma(split.l, add, total->l * keep);
  for (int d = 0; d < head_dim; ++d) {
    total->sum[d] = std::fma(split.sum[d], add, total->sum[d] * keep);
  }
}

void AttendQuery(const AttentionArgs& args, const SequenceRows& sequence, int kv_head, int head,
                 const float* q, int num_keys, float* out) {
  const int head_dim = args.kv.head_dim;
  const AttentionScratch scratch = CutAttentionScratch(args.scratch, head_dim);
  const int first_key = FirstKey(num_keys, args.window);
  Running total = {};
  for (int first = first_key; first < num_keys;) {
    const int next = (first / kKvSplitTokens + 1) * kKvSplitTokens;
    const int end = num_keys < next ? num_keys : next;
    const Running split = AttendSplit(args, sequence, kv_head, q, first, end, scratch);
    if (first == first_key) {
      total = {split.max, split.l, scratch.total};
      std::memcpy(total.sum, split.sum, sizeof(float) * head_dim);
    } else {
      Merge(split, head_dim, &total);
    }
    first = end;
  }
  if (args.sinks != nullptr) {
    std::memset(scratch.split, 0, sizeof(float) * head_dim);
    Merge({args.sinks[head], 1.0f, scratch.split}, head_dim, &total);
  }
  for (int d = 0; d < head_dim; ++d) out[d] = total.sum[d] / total.l;
}

}  // namespace

void KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end) {
  const KvCacheView& kv = args.kv;
  for (int64_t row = begin; row < end; ++row) {
    const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
    const int position = s.position + static_cast<int>(row - s.row_begin);
    const int32_t block = s.blocks[position / kKvBlockTokens];
    const int slot = position % kKvBlockTokens;
    for (int head = 0; head < kv.num_kv_heads; ++head) {
      const float* k = args.k + row * args.k_stride + int64_t{head} * kv.head_dim;
      const float* v = args.v + row * args.v_stride + int64_t{head} * kv.head_dim;
      uint8_t* keys = KeyBlock(kv, block, head);
      uint8_t* values = ValueBlock(kv, block, head);
      for (int d = 0; d < kv.head_dim; ++d) {
        StoreElement(kv.type, keys, int64_t{d} * kKvBlockTokens + slot, k[d]);
        StoreElement(kv.type, values, int64_t{slot} * kv.head_dim + d, v[d]);
      }
    }
  }
}

void Attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  const int group = args.num_heads / args.kv.num_kv_heads;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t row = task / args.kv.num_kv_heads;
    const int kv_head = static_cast<int>(task % args.kv.num_kv_heads);
    const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
    const int num_keys = s.position + static_cast<int>(row - s.row_begin) + 1;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const int64_t offset = int64_t{head} * args.kv.head_dim;
      AttendQuery(args, s, kv_head, head, args.q + row * args.q_stride + offset, num_keys,
                  args.out + row * args.out_stride + offset);
    }
  }
}

}  // namespace dovetail::kernels::ref
