#include <cmath>
#include <cstring>
#include <limits>

#include "base/float_convert.h"
#include "kernels/exp_constants.h"
#include "kernels/kv_layout.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {

float AttentionWeight(float x) { return x < exp_constants::kLowestWeight ? 0.0f : Exp(x); }

namespace {

constexpr uint16_t kNanHalf = 0x7e00;

uint16_t LoadHalf(const uint8_t* from) {
  uint16_t h;
  std::memcpy(&h, from, 2);
  return h;
}

void StoreHalf(uint8_t* to, uint16_t h) { std::memcpy(to, &h, 2); }

float LoadElement(const KvPart& part, int slot, int d) {
  const int64_t i = ElementIndex(part, slot, d);
  switch (part.type) {
    case KvType::kF32: {
      float f;
      std::memcpy(&f, part.data + 4 * i, 4);
      return f;
    }
    case KvType::kF16:
      return F16ToF32(LoadHalf(part.data + 2 * i));
    case KvType::kBF16:
      return Bf16ToF32(LoadHalf(part.data + 2 * i));
    case KvType::kQ8_0:
      break;
  }
  return F16ToF32(LoadHalf(ScaleOf(part, slot, d))) * static_cast<int8_t>(part.data[i]);
}

// Elements [first, end) of x, which share a scale.
void StoreScaled(const KvPart& part, int slot, const float* x, int first, int end) {
  float amax = 0.0f;
  bool finite = true;
  for (int d = first; d < end; ++d) {
    amax = std::fabs(x[d]) > amax ? std::fabs(x[d]) : amax;
    finite = finite && std::isfinite(x[d]);
  }
  const uint16_t half = finite ? F32ToF16(amax / 127.0f) : kNanHalf;
  StoreHalf(ScaleOf(part, slot, first), half);
  const float scale = F16ToF32(half);
  const float inverse = 1.0f / scale;
  for (int d = first; d < end; ++d) {
    float q = 0.0f;
    if (scale > 0.0f && std::isfinite(scale)) q = std::nearbyint(x[d] * inverse);
    q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
    part.data[ElementIndex(part, slot, d)] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
}

// One token's vector; returns whether what is stored is finite.
bool StoreVector(const KvPart& part, int slot, const float* x) {
  bool finite = true;
  for (int d = 0; d < part.dim; ++d) {
    finite = finite && std::fabs(x[d]) < StoredLimit(part.type);
    const int64_t i = ElementIndex(part, slot, d);
    if (part.type == KvType::kF32) {
      std::memcpy(part.data + 4 * i, x + d, 4);
    } else if (part.type == KvType::kF16) {
      StoreHalf(part.data + 2 * i, F32ToF16(x[d]));
    } else if (part.type == KvType::kBF16) {
      StoreHalf(part.data + 2 * i, F32ToBf16(x[d]));
    } else if (d % kKvScaleElements == 0) {
      const int rest = part.dim - d;
      StoreScaled(part, slot, x, d, d + (rest < kKvScaleElements ? rest : kKvScaleElements));
    }
  }
  return finite;
}

// The state of one query over the keys seen so far: out = sum / l, all relative to exp(max).
struct Running {
  float max;
  float l;
  float* sum;  // [value_dim]
};

// Keys [first, end) of a sequence, all inside one split.
Running AttendSplit(const AttentionArgs& args, const SequenceRows& sequence, int kv_head,
                    const float* q, int first, int end, const AttentionScratch& scratch) {
  const KvCacheView& kv = args.kv;
  Running split = {-std::numeric_limits<float>::infinity(), 0.0f, scratch.split};
  for (int position = first; position < end; ++position) {
    const KvPart keys = KeyPart(kv, sequence.blocks[position / kKvBlockTokens], kv_head);
    float score = 0.0f;
    for (int d = 0; d < kv.shape.key_dim; ++d) {
      score = std::fma(q[d], LoadElement(keys, position % kKvBlockTokens, d), score);
    }
    score *= args.scale;
    scratch.scores[position - first] = score;
    split.max = score > split.max ? score : split.max;
  }
  float partial[16] = {};
  for (int d = 0; d < kv.shape.value_dim; ++d) split.sum[d] = 0.0f;
  for (int position = first; position < end; ++position) {
    const KvPart values = ValuePart(kv, sequence.blocks[position / kKvBlockTokens], kv_head);
    const float p = AttentionWeight(scratch.scores[position - first] - split.max);
    partial[position % 16] += p;
    for (int d = 0; d < kv.shape.value_dim; ++d) {
      split.sum[d] = std::fma(p, LoadElement(values, position % kKvBlockTokens, d), split.sum[d]);
    }
  }
  split.l = TreeSum(partial, 16);
  return split;
}

void Merge(const Running& split, int value_dim, Running* total) {
  const float max = split.max > total->max ? split.max : total->max;
  const float keep = AttentionWeight(total->max - max);
  const float add = AttentionWeight(split.max - max);
  total->max = max;
  total->l = std::fma(split.l, add, total->l * keep);
  for (int d = 0; d < value_dim; ++d) {
    total->sum[d] = std::fma(split.sum[d], add, total->sum[d] * keep);
  }
}

void Finish(const AttentionArgs& args, int head, Running* total, float* out) {
  const int value_dim = args.kv.shape.value_dim;
  if (args.sinks != nullptr) {
    const AttentionScratch scratch = CutAttentionScratch(args.scratch, args.kv.shape);
    std::memset(scratch.split, 0, sizeof(float) * value_dim);
    Merge({args.sinks[head], 1.0f, scratch.split}, value_dim, total);
  }
  for (int d = 0; d < value_dim; ++d) out[d] = total->sum[d] / total->l;
}

// The end of split `split`, of a query with so many keys.
int EndOfSplit(int64_t split, int num_keys) {
  const int64_t next = (split + 1) * kKvSplitTokens;
  return num_keys < next ? num_keys : static_cast<int>(next);
}

void AttendQuery(const AttentionArgs& args, const SequenceRows& sequence, int kv_head, int head,
                 const float* q, int num_keys, float* out) {
  const int value_dim = args.kv.shape.value_dim;
  const AttentionScratch scratch = CutAttentionScratch(args.scratch, args.kv.shape);
  const int first_key = FirstKey(num_keys, args.window);
  Running total = {};
  for (int first = first_key; first < num_keys;) {
    const int end = EndOfSplit(first / kKvSplitTokens, num_keys);
    const Running split = AttendSplit(args, sequence, kv_head, q, first, end, scratch);
    if (first == first_key) {
      total = {split.max, split.l, scratch.total};
      std::memcpy(total.sum, split.sum, sizeof(float) * value_dim);
    } else {
      Merge(split, value_dim, &total);
    }
    first = end;
  }
  Finish(args, head, &total, out);
}

// One head of a task: what AttendQuery and the two phases know of it.
struct Query {
  const SequenceRows* sequence;
  int head, kv_head, num_keys;
  const float* q;
  float* out;
};

Query QueryOf(const AttentionArgs& args, int64_t task, int head_of_task) {
  const int groups = args.num_heads / args.heads_per_task;
  const int64_t row = task / groups;
  Query query;
  query.sequence = FindSequence(args.sequences, args.num_sequences, row);
  query.head = static_cast<int>(task % groups) * args.heads_per_task + head_of_task;
  query.kv_head = query.head / (args.num_heads / args.kv.shape.num_heads);
  query.num_keys = query.sequence->position + static_cast<int>(row - query.sequence->row_begin) + 1;
  query.q =
      args.q + (row - args.first_row) * args.q_stride + int64_t{query.head} * args.kv.shape.key_dim;
  query.out = args.out + (row - args.first_row) * args.out_stride +
              int64_t{query.head} * args.kv.shape.value_dim;
  return query;
}

}  // namespace

bool KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end) {
  const KvShape& shape = args.kv.shape;
  bool finite = true;
  for (int64_t row = begin; row < end; ++row) {
    const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
    const int position = s.position + static_cast<int>(row - s.row_begin);
    const int32_t block = s.blocks[position / kKvBlockTokens];
    const int slot = position % kKvBlockTokens;
    for (int head = 0; head < shape.num_heads; ++head) {
      const float* k = args.k + row * args.k_stride + int64_t{head} * shape.key_dim;
      finite &= StoreVector(KeyPart(args.kv, block, head), slot, k);
      if (shape.layout == KvLayout::kLatent) continue;
      const float* v = args.v + row * args.v_stride + int64_t{head} * shape.value_dim;
      finite &= StoreVector(ValuePart(args.kv, block, head), slot, v);
    }
  }
  return finite;
}

void Attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    for (int head = 0; head < args.heads_per_task; ++head) {
      const Query query = QueryOf(args, task, head);
      AttendQuery(args, *query.sequence, query.kv_head, query.head, query.q, query.num_keys,
                  query.out);
    }
  }
}

void AttentionParts(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end) {
  const AttentionScratch scratch = CutAttentionScratch(args.scratch, args.kv.shape);
  for (int head = 0; head < args.heads_per_task; ++head) {
    const Query query = QueryOf(args, task, head);
    const int first_key = FirstKey(query.num_keys, args.window);
    for (int64_t split = begin; split < end; ++split) {
      const int from = static_cast<int>(split * kKvSplitTokens);
      const int first = from < first_key ? first_key : from;
      const int past = EndOfSplit(split, query.num_keys);
      if (first >= past) continue;
      const Running part =
          AttendSplit(args, *query.sequence, query.kv_head, query.q, first, past, scratch);
      float* to = PartOf(args, task, split, head);
      to[0] = part.max;
      to[1] = part.l;
      std::memcpy(to + kPartSum, part.sum, sizeof(float) * args.kv.shape.value_dim);
    }
  }
}

void AttentionMerge(const AttentionArgs& args, int64_t begin, int64_t end) {
  const int value_dim = args.kv.shape.value_dim;
  const AttentionScratch scratch = CutAttentionScratch(args.scratch, args.kv.shape);
  for (int64_t task = begin; task < end; ++task) {
    for (int head = 0; head < args.heads_per_task; ++head) {
      const Query query = QueryOf(args, task, head);
      const int64_t first = FirstKey(query.num_keys, args.window) / kKvSplitTokens;
      Running total = {};
      for (int64_t split = first; split * kKvSplitTokens < query.num_keys; ++split) {
        float* part = PartOf(args, task, split, head);
        if (split == first) {
          total = {part[0], part[1], scratch.total};
          std::memcpy(total.sum, part + kPartSum, sizeof(float) * value_dim);
        } else {
          Merge({part[0], part[1], part + kPartSum}, value_dim, &total);
        }
      }
      Finish(args, query.head, &total, query.out);
    }
  }
}

}  // namespace dovetail::kernels::ref
