// Attention over the KV cache, element by element as kernels/ref has it: a thread has the whole sum
// of each score, and of each element of the output, so that no float is added in another order than
// there. Here is what all kernels share, and those for vectors of any length, which load one
// element at a time: a block has one task, or a split of one. attention_rows.inl.h has the same for
// vectors as models have them, attention_tile.inl.h tiles of queries, attention_merge.inl.h the
// merge of splits. After kv_cache.inl.h.

constexpr int kAttentionThreads = 128;
constexpr int kAttentionWarps = kAttentionThreads / kWarp;

// One row and the heads of one task: what all kernels know of it.
struct AttentionTask {
  const SequenceRows* sequence;
  int head;     // the first one
  int kv_head;  // of all of them
  int num_keys, first_key;
  const float* q;  // [heads, key_dim]
  float* out;      // [heads, value_dim]
};

// FindSequence by all threads of a warp, whose lanes look at the ends of different ones.
DT_DEVICE const SequenceRows* SequenceOf(const AttentionArgs& args, int row) {
  if (args.num_sequences == 1) return args.sequences;
  int before = 0;
  for (int i = Lane(); i < args.num_sequences; i += kWarp) {
    const SequenceRows& sequence = args.sequences[i];
    if (sequence.row_begin + sequence.num_rows <= row) ++before;
  }
  return args.sequences + Smaller(TreeSum(before), args.num_sequences - 1);
}

// The task with heads from `head` on of a row. By all threads of a warp.
DT_DEVICE AttentionTask TaskAt(const AttentionArgs& args, int row, int head, int kv_head) {
  AttentionTask result;
  result.sequence = SequenceOf(args, row);
  result.head = head;
  result.kv_head = kv_head;
  result.num_keys = result.sequence->position + row - result.sequence->row_begin + 1;
  result.first_key = FirstKey(result.num_keys, args.window);
  const int64_t at = row - args.first_row;
  result.q = args.q + at * args.q_stride + int64_t{head} * args.kv.shape.key_dim;
  result.out = args.out + at * args.out_stride + int64_t{head} * args.kv.shape.value_dim;
  return result;
}

DT_DEVICE AttentionTask TaskOf(const AttentionArgs& args, int task) {
  const int groups = args.num_heads / args.heads_per_task;
  const int row = task / groups;
  const int head = (task - row * groups) * args.heads_per_task;
  return TaskAt(args, row, head, head / (args.num_heads / args.kv.shape.num_heads));
}

// Division by what the launch knows, as a multiplication: exact for 0 <= a with a * by < 2^32.
struct Divisor {
  int32_t by;
  uint64_t factor;  // 2^32 / by, rounded down, + 1
};
static inline Divisor DivisorOf(int64_t by) {
  return {static_cast<int32_t>(by), (uint64_t{1} << 32) / static_cast<uint64_t>(by) + 1};
}
DT_DEVICE int operator/(int a, const Divisor& divisor) {
  return static_cast<int>(static_cast<uint32_t>(a) * divisor.factor >> 32);
}

// Keys [first, past) of split `split` that a task sees.
struct SplitKeys {
  int first, past;
};
DT_DEVICE SplitKeys KeysOf(const AttentionTask& task, int split) {
  const int from = split * kKvSplitTokens;
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

// Of one split of a head: the largest score, and the sum of the probabilities.
struct SoftmaxState {
  float max, l;
};

// Turns the scores from scores[at] on, of which the first is that of the split's first position,
// into probabilities; those of keys that are not seen become 0. By a warp, whose lanes all have the
// result. A lane has its probabilities in registers: that of key 32 i + lane in p[i].
template <typename Shared>
DT_DEVICE SoftmaxState Softmax(int at, SplitKeys keys, Shared& scores) {
  constexpr int kKeys = kKvSplitTokens / kWarp;
  const int first = keys.first & (kKvSplitTokens - 1), past = first + keys.past - keys.first;
  float p[kKeys];
  float max = -FloatOf(0x7f800000u);
  DT_UNROLL
  for (int i = 0; i < kKeys; ++i) {
    const int key = i * kWarp + Lane();
    p[i] = first <= key && key < past ? scores[at + key] : -FloatOf(0x7f800000u);
    max = p[i] > max ? p[i] : max;
  }
  max = WarpMax(max);
  DT_UNROLL
  for (int i = 0; i < kKeys; ++i) {
    const int key = i * kWarp + Lane();
    p[i] = first <= key && key < past ? AttentionWeight(p[i] - max) : 0.0f;
    scores[at + key] = p[i];
  }
  // Lane i sums the keys whose position is i mod 16, in their order; the upper lanes do the same
  // again. Adding the 0 of a key that is not seen changes no bit of a sum that began with 0.
  float l = 0.0f;
  DT_UNROLL
  for (int i = 0; i < kKeys; ++i) {
    const float other = ShuffleXor(p[i], 16);
    l = l + (Lane() < 16 ? p[i] : other);
    l = l + (Lane() < 16 ? other : p[i]);
  }
  for (int half = 8; half > 0; half /= 2) l = l + ShuffleXor(l, half);
  return {max, l};
}

// The softmax of each head, a warp for each. max_l[2 h]: the maximum, then l.
template <typename Shared, typename State>
DT_DEVICE void SplitSoftmax(int heads, SplitKeys keys, Shared& scores, State& max_l) {
  for (int h = WarpIndex(); h < heads; h += kAttentionWarps) {
    const SoftmaxState state = Softmax(h * kKvSplitTokens, keys, scores);
    if (Lane() == 0) {
      max_l[2 * h] = state.max;
      max_l[2 * h + 1] = state.l;
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
  merged.keep = AttentionWeight(total_max - merged.max);
  merged.add = AttentionWeight(split_max - merged.max);
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

// Heads that the kernels for vectors of any length work on at once.
constexpr int kElementHeads = 4;

// A block for each task: all of its splits, one after another. The sums of the splits so far are in
// `out`; states: max, l of the split, then of all before it. Sequences of at least `tile_rows` rows
// are AttentionTileKernel's.
DT_KERNEL void AttentionKernel(AttentionArgs args, int64_t begin, int tile_rows) {
  DT_SHARED(float, scores, kElementHeads* kKvSplitTokens);
  DT_SHARED(float, split_state, 2 * kElementHeads);
  DT_SHARED(float, total_state, 2 * kElementHeads);
  const AttentionTask task = TaskOf(args, static_cast<int>(begin) + BlockIndex());
  if (task.sequence->num_rows >= tile_rows) return;
  const int value_dim = args.kv.shape.value_dim;
  for (int first_head = 0; first_head < args.heads_per_task; first_head += kElementHeads) {
    const int heads = Smaller(kElementHeads, args.heads_per_task - first_head);
    float* out = task.out + int64_t{first_head} * value_dim;
    const int first_split = task.first_key / kKvSplitTokens;
    for (int split = first_split; split * kKvSplitTokens < task.num_keys; ++split) {
      const SplitKeys keys = KeysOf(task, split);
      SplitScores<kElementHeads>(args, task, first_head, heads, keys, scores);
      SyncBlock();
      SplitSoftmax(heads, keys, scores, split_state);
      SyncBlock();
      for (int d = ThreadIndex(); d < value_dim; d += BlockThreads()) {
        float sum[kElementHeads];
        SplitValues<kElementHeads>(args, task, heads, keys, d, scores, sum);
        DT_UNROLL
        for (int h = 0; h < kElementHeads; ++h) {
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
DT_KERNEL void AttentionPartsKernel(AttentionArgs args, int64_t first, int64_t begin) {
  DT_SHARED(float, scores, kElementHeads* kKvSplitTokens);
  DT_SHARED(float, state, 2 * kElementHeads);
  const int index = static_cast<int>(first) + BlockIndexY();
  const AttentionTask task = TaskOf(args, index);
  const int split = static_cast<int>(begin) + BlockIndex();
  const SplitKeys keys = KeysOf(task, split);
  if (keys.first >= keys.past) return;
  for (int first_head = 0; first_head < args.heads_per_task; first_head += kElementHeads) {
    const int heads = Smaller(kElementHeads, args.heads_per_task - first_head);
    SplitScores<kElementHeads>(args, task, first_head, heads, keys, scores);
    SyncBlock();
    SplitSoftmax(heads, keys, scores, state);
    SyncBlock();
    for (int d = ThreadIndex(); d < args.kv.shape.value_dim; d += BlockThreads()) {
      float sum[kElementHeads];
      SplitValues<kElementHeads>(args, task, heads, keys, d, scores, sum);
      DT_UNROLL
      for (int h = 0; h < kElementHeads; ++h) {
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
