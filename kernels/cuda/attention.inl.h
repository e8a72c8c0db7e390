// The KV cache and attention over it, element by element as kernels/ref has it: a thread has the
// whole sum of each score, and of each element of the output, so that no float is added in another
// order than there.

constexpr int kAttentionThreads = 128;
constexpr int kAttentionWarps = kAttentionThreads / kWarp;

DT_DEVICE float LoadElement(const KvPart& part, int slot, int64_t d) {
  const int64_t i = ElementIndex(part, slot, d);
  switch (part.type) {
    case KvType::kF32:
      return LoadVector<float>(part.data + 4 * i);
    case KvType::kF16:
      return HalfToFloat(LoadVector<uint16_t>(part.data + 2 * i));
    case KvType::kBF16:
      return FloatOf(static_cast<uint32_t>(LoadVector<uint16_t>(part.data + 2 * i)) << 16);
    case KvType::kQ8_0:
      break;
  }
  const float scale = HalfToFloat(LoadVector<uint16_t>(ScaleOf(part, slot, d)));
  return scale * static_cast<float>(static_cast<int8_t>(part.data[i]));
}

DT_DEVICE uint16_t FloatToBf16(float v) {
  const uint32_t bits = BitsOf(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

DT_DEVICE bool IsFinite(float v) { return (BitsOf(v) & 0x7fffffffu) < 0x7f800000u; }
DT_DEVICE float Magnitude(float v) { return FloatOf(BitsOf(v) & 0x7fffffffu); }

DT_DEVICE void StoreHalf(uint8_t* to, uint16_t half) { *reinterpret_cast<uint16_t*>(to) = half; }

// One scale's elements, a lane for each; `has`: this lane's is one of the vector's.
DT_DEVICE void StoreScaled(const KvPart& part, int slot, int d, float x, bool has) {
  const float magnitude = has && Magnitude(x) == Magnitude(x) ? Magnitude(x) : 0.0f;
  const float amax = WarpMax(magnitude);
  const bool finite = Ballot(has && !IsFinite(x)) == 0;
  const uint16_t half = finite ? FloatToHalf(amax / 127.0f) : uint16_t{0x7e00};
  if (!has) return;
  if (d % kKvScaleElements == 0) StoreHalf(ScaleOf(part, slot, d), half);
  const float scale = HalfToFloat(half);
  float q = 0.0f;
  if (scale > 0.0f && IsFinite(scale)) q = RoundToNearestEven(x * (1.0f / scale));
  q = q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q;
  part.data[ElementIndex(part, slot, d)] = static_cast<uint8_t>(static_cast<int8_t>(q));
}

DT_DEVICE void StoreElement(const KvPart& part, int slot, int d, float x) {
  const int64_t i = ElementIndex(part, slot, d);
  if (part.type == KvType::kF32) {
    *reinterpret_cast<float*>(part.data + 4 * i) = x;
  } else {
    StoreHalf(part.data + 2 * i, part.type == KvType::kF16 ? FloatToHalf(x) : FloatToBf16(x));
  }
}

// A warp stores one token's vector; returns whether what this lane stored is finite.
DT_DEVICE bool StoreVector(const KvPart& part, int slot, const float* x) {
  bool finite = true;
  for (int first = 0; first < part.dim; first += kWarp) {
    const int d = first + Lane();
    const bool has = d < part.dim;
    const float v = has ? x[d] : 0.0f;
    finite = finite && Magnitude(v) < StoredLimit(part.type);
    if (part.type == KvType::kQ8_0) {
      StoreScaled(part, slot, d, v, has);
    } else if (has) {
      StoreElement(part, slot, d, v);
    }
  }
  return finite;
}

// A warp for each row and KV head. *flag is raised where something stored is not finite.
DT_KERNEL void KvAppendKernel(KvAppendArgs args, int64_t begin, int64_t end, int32_t* flag) {
  const KvShape& shape = args.kv.shape;
  const int64_t row = begin + GlobalWarp() / shape.num_heads;
  const int head = static_cast<int>(GlobalWarp() % shape.num_heads);
  if (row >= end) return;
  const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
  const int position = s.position + static_cast<int>(row - s.row_begin);
  const int32_t block = s.blocks[position / kKvBlockTokens];
  const int slot = position % kKvBlockTokens;
  const float* k = args.k + row * args.k_stride + int64_t{head} * shape.key_dim;
  bool finite = StoreVector(KeyPart(args.kv, block, head), slot, k);
  if (shape.layout != KvLayout::kLatent) {
    const float* v = args.v + row * args.v_stride + int64_t{head} * shape.value_dim;
    finite = StoreVector(ValuePart(args.kv, block, head), slot, v) && finite;
  }
  if (!finite) RaiseFlag(flag);
}

// --- attention

// One row and the heads of one task: what all kernels know of it.
struct AttentionTask {
  const SequenceRows* sequence;
  int head;     // the first one
  int kv_head;  // of all of them
  int num_keys, first_key;
  const float* q;  // [heads, key_dim]
  float* out;      // [heads, value_dim]
};

DT_DEVICE AttentionTask TaskOf(const AttentionArgs& args, int64_t task) {
  const int groups = args.num_heads / args.heads_per_task;
  const int64_t row = task / groups;
  AttentionTask result;
  result.sequence = FindSequence(args.sequences, args.num_sequences, row);
  result.head = static_cast<int>(task % groups) * args.heads_per_task;
  result.kv_head = result.head / (args.num_heads / args.kv.shape.num_heads);
  result.num_keys =
      result.sequence->position + static_cast<int>(row - result.sequence->row_begin) + 1;
  result.first_key = FirstKey(result.num_keys, args.window);
  const int64_t at = row - args.first_row;
  result.q = args.q + at * args.q_stride + int64_t{result.head} * args.kv.shape.key_dim;
  result.out = args.out + at * args.out_stride + int64_t{result.head} * args.kv.shape.value_dim;
  return result;
}

// Keys [first, past) of split `split` that a task sees.
struct SplitKeys {
  int first, past;
};
DT_DEVICE SplitKeys KeysOf(const AttentionTask& task, int64_t split) {
  const int from = static_cast<int>(split * kKvSplitTokens);
  return {Larger(from, task.first_key), Smaller(from + kKvSplitTokens, task.num_keys)};
}

// scores[h][j] of `heads` heads and the split's keys: a thread for each key, which it reads once
// for kHeads heads.
template <int kHeads, typename Shared>
DT_DEVICE void SplitScores(const AttentionArgs& args, const AttentionTask& task, int first_head,
                           int heads, SplitKeys keys, Shared& scores) {
  const int key_dim = args.kv.shape.key_dim;
  const float* q = task.q + int64_t{first_head} * key_dim;
  for (int position = keys.first + ThreadIndex(); position < keys.past;
       position += BlockThreads()) {
    const KvPart part =
        KeyPart(args.kv, task.sequence->blocks[position / kKvBlockTokens], task.kv_head);
    float score[kHeads] = {};
    for (int d = 0; d < key_dim; ++d) {
      const float k = LoadElement(part, position % kKvBlockTokens, d);
      DT_UNROLL
      for (int h = 0; h < kHeads; ++h) {
        if (h < heads) score[h] = Fma(q[int64_t{h} * key_dim + d], k, score[h]);
      }
    }
    DT_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      if (h < heads) scores[h * kKvSplitTokens + position % kKvSplitTokens] = score[h] * args.scale;
    }
  }
}

// Turns scores into probabilities; a warp for each head. max_l[2 h]: the maximum, then l.
template <typename Shared, typename State>
DT_DEVICE void SplitSoftmax(int heads, SplitKeys keys, Shared& scores, State& max_l) {
  for (int h = WarpIndex(); h < heads; h += kAttentionWarps) {
    const int row = h * kKvSplitTokens;
    float max = -FloatOf(0x7f800000u);
    for (int p = keys.first + Lane(); p < keys.past; p += kWarp) {
      const float score = scores[row + p % kKvSplitTokens];
      max = score > max ? score : max;
    }
    max = WarpMax(max);
    for (int p = keys.first + Lane(); p < keys.past; p += kWarp) {
      const float score = scores[row + p % kKvSplitTokens];
      scores[row + p % kKvSplitTokens] = Exp(score - max);
    }
    SyncWarp();
    // Lane i sums the keys whose position is i mod 16; the upper lanes do the same again.
    const int lane = Lane() % 16;
    float l = 0.0f;
    for (int p = keys.first + (lane - keys.first % 16 + 16) % 16; p < keys.past; p += 16) {
      l = l + scores[row + p % kKvSplitTokens];
    }
    for (int half = 8; half > 0; half /= 2) l = l + ShuffleXor(l, half);
    if (Lane() == 0) {
      max_l[2 * h] = max;
      max_l[2 * h + 1] = l;
    }
  }
}

// sum[h] = the sum over the split's keys of p_j v_jd, for this thread's d.
template <int kHeads, typename Shared>
DT_DEVICE void SplitValues(const AttentionArgs& args, const AttentionTask& task, int heads,
                           SplitKeys keys, int d, Shared& scores, float (&sum)[kHeads]) {
  for (int h = 0; h < kHeads; ++h) sum[h] = 0.0f;
  for (int position = keys.first; position < keys.past; ++position) {
    const KvPart part =
        ValuePart(args.kv, task.sequence->blocks[position / kKvBlockTokens], task.kv_head);
    const float v = LoadElement(part, position % kKvBlockTokens, d);
    DT_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) break;
      const float p = scores[h * kKvSplitTokens + position % kKvSplitTokens];
      sum[h] = Fma(p, v, sum[h]);
    }
  }
}

// The merge of a split into what the splits before it gave, for one head: factors of both.
struct MergeFactors {
  float max, l, keep, add;
};
DT_DEVICE MergeFactors MergeOf(float total_max, float total_l, float split_max, float split_l) {
  MergeFactors merged;
  merged.max = split_max > total_max ? split_max : total_max;
  merged.keep = Exp(total_max - merged.max);
  merged.add = Exp(split_max - merged.max);
  merged.l = Fma(split_l, merged.add, total_l * merged.keep);
  return merged;
}

// What is left of a head's row when all splits are in `total`: the sink, and the division.
DT_DEVICE float Finished(const AttentionArgs& args, int head, float max, float l, float total) {
  if (args.sinks != nullptr) {
    const MergeFactors merged = MergeOf(max, l, args.sinks[head], 1.0f);
    total = Fma(0.0f, merged.add, total * merged.keep);
    l = merged.l;
  }
  return total / l;
}

// A block for each task: all of its splits, one after another. The sums of the splits so far are in
// `out`; states: max, l of the split, then of all before it.
template <int kHeads>
DT_KERNEL void AttentionKernel(AttentionArgs args, int64_t begin) {
  DT_SHARED(float, scores, kHeads* kKvSplitTokens);
  DT_SHARED(float, split_state, 2 * kHeads);
  DT_SHARED(float, total_state, 2 * kHeads);
  const AttentionTask task = TaskOf(args, begin + BlockIndex());
  const int value_dim = args.kv.shape.value_dim;
  for (int first_head = 0; first_head < args.heads_per_task; first_head += kHeads) {
    const int heads = Smaller(kHeads, args.heads_per_task - first_head);
    float* out = task.out + int64_t{first_head} * value_dim;
    const int64_t first_split = task.first_key / kKvSplitTokens;
    for (int64_t split = first_split; split * kKvSplitTokens < task.num_keys; ++split) {
      const SplitKeys keys = KeysOf(task, split);
      SplitScores<kHeads>(args, task, first_head, heads, keys, scores);
      SyncBlock();
      SplitSoftmax(heads, keys, scores, split_state);
      SyncBlock();
      for (int d = ThreadIndex(); d < value_dim; d += BlockThreads()) {
        float sum[kHeads];
        SplitValues<kHeads>(args, task, heads, keys, d, scores, sum);
        DT_UNROLL
        for (int h = 0; h < kHeads; ++h) {
          if (h >= heads) break;
          float* total = out + int64_t{h} * value_dim + d;
          if (split == first_split) {
            *total = sum[h];
          } else {
            const MergeFactors merged = MergeOf(total_state[2 * h], total_state[2 * h + 1],
                                                split_state[2 * h], split_state[2 * h + 1]);
            *total = Fma(sum[h], merged.add, *total * merged.keep);
          }
        }
      }
      SyncBlock();
      for (int h = ThreadIndex(); h < heads; h += BlockThreads()) {
        MergeFactors merged = {split_state[2 * h], split_state[2 * h + 1], 0.0f, 0.0f};
        if (split != first_split) {
          merged = MergeOf(total_state[2 * h], total_state[2 * h + 1], merged.max, merged.l);
        }
        total_state[2 * h] = merged.max;
        total_state[2 * h + 1] = merged.l;
      }
      SyncBlock();
    }
    for (int i = ThreadIndex(); i < heads * value_dim; i += BlockThreads()) {
      const int h = i / value_dim;
      const int head = task.head + first_head + h;
      // This thread's own sums where value_dim is a multiple of the block's threads; else others'.
      out[i] = Finished(args, head, total_state[2 * h], total_state[2 * h + 1], out[i]);
    }
    SyncBlock();
  }
}

// Block x: splits from `begin` on; block y: tasks from `first` on.
template <int kHeads>
DT_KERNEL void AttentionPartsKernel(AttentionArgs args, int64_t first, int64_t begin) {
  DT_SHARED(float, scores, kHeads* kKvSplitTokens);
  DT_SHARED(float, state, 2 * kHeads);
  const int64_t index = first + BlockIndexY();
  const AttentionTask task = TaskOf(args, index);
  const int64_t split = begin + BlockIndex();
  const SplitKeys keys = KeysOf(task, split);
  if (keys.first >= keys.past) return;
  for (int first_head = 0; first_head < args.heads_per_task; first_head += kHeads) {
    const int heads = Smaller(kHeads, args.heads_per_task - first_head);
    SplitScores<kHeads>(args, task, first_head, heads, keys, scores);
    SyncBlock();
    SplitSoftmax(heads, keys, scores, state);
    SyncBlock();
    for (int d = ThreadIndex(); d < args.kv.shape.value_dim; d += BlockThreads()) {
      float sum[kHeads];
      SplitValues<kHeads>(args, task, heads, keys, d, scores, sum);
      DT_UNROLL
      for (int h = 0; h < kHeads; ++h) {
        if (h >= heads) break;
        PartOf(args, index, split, first_head + h)[kPartSum + d] = sum[h];
      }
    }
    for (int h = ThreadIndex(); h < heads; h += BlockThreads()) {
      float* part = PartOf(args, index, split, first_head + h);
      part[0] = state[2 * h];
      part[1] = state[2 * h + 1];
    }
    SyncBlock();
  }
}

// Block x: a task from `begin` on; block y: one of its heads.
DT_KERNEL void AttentionMergeKernel(AttentionArgs args, int64_t begin) {
  const int64_t index = begin + BlockIndex();
  const int head = BlockIndexY();
  const AttentionTask task = TaskOf(args, index);
  const int value_dim = args.kv.shape.value_dim;
  for (int d = ThreadIndex(); d < value_dim; d += BlockThreads()) {
    float max = 0.0f, l = 0.0f, total = 0.0f;
    const int64_t first = task.first_key / kKvSplitTokens;
    for (int64_t split = first; split * kKvSplitTokens < task.num_keys; ++split) {
      const float* part = PartOf(args, index, split, head);
      if (split == first) {
        max = part[0];
        l = part[1];
        total = part[kPartSum + d];
        continue;
      }
      const MergeFactors merged = MergeOf(max, l, part[0], part[1]);
      total = Fma(part[kPartSum + d], merged.add, total * merged.keep);
      max = merged.max;
      l = merged.l;
    }
    task.out[int64_t{head} * value_dim + d] = Finished(args, task.head + head, max, l, total);
  }
}
