// Attention of few rows, for vectors as models have them (dims are multiples of 16): a block has
// some heads of a task and one split of its keys, or all splits one after another. After
// attention_scores.inl.h; every sum has the order that attention.inl.h has.
//
// Keys, then values come into shared memory as they are stored, in stages of 8 KiB: two warps bring
// them, and three stages are under way while the other four work on one, across the softmax and
// from one split to the next. Of those a thread has the scores of two keys for all heads of the
// block, then a few neighbouring elements of the output for some of them.

// --- Softmax.

// Of one head, behind a split: of all splits so far (of this one, where a block has no other), and
// what the values' sums are merged and finished with.
struct alignas(16) RowState {
  float max, l;
  float keep, add;            // of the merge of this split
  float sink_keep, sink_add;  // of the sink's, behind the last one
  float divisor;
  float unused;
};

DT_DEVICE RowState StateAfter(const AttentionArgs& args, const RowWork& work, int split, int head,
                              SoftmaxState own, const RowState& before) {
  RowState state = {own.max, own.l, 0.0f, 0.0f, 0.0f, 0.0f, own.l, 0.0f};
  if (split != work.first_split) {
    const MergeFactors merged = MergeOf(before.max, before.l, own.max, own.l);
    state = {merged.max, merged.l, merged.keep, merged.add, 0.0f, 0.0f, merged.l, 0.0f};
  }
  if (args.sinks != nullptr && split + 1 == work.past_split) {
    const MergeFactors sink = MergeOf(state.max, state.l, args.sinks[head], 1.0f);
    state.sink_keep = sink.keep;
    state.sink_add = sink.add;
    state.divisor = sink.l;
  }
  return state;
}

// A warp for each head.
template <typename Shared, typename States>
DT_DEVICE void RowSoftmax(const AttentionArgs& args, const RowWork& work, int split, Shared& scores,
                          States& states) {
  for (int h = WarpIndex(); h < work.heads; h += kAttentionWarps) {
    const SoftmaxState own = Softmax(h * kKvSplitTokens, KeysOf(work.task, split), scores);
    if (Lane() != 0) continue;
    RowState before = {};
    if (split != work.first_split) before = states[h];
    states[h] = StateAfter(args, work, split, work.task.head + work.first_head + h, own, before);
  }
}

// --- Values.

// Adds p_j v_jd of kKeys keys for this thread's heads and elements. at: where their values are;
// key: the first one, of the split.
template <typename Shape, int kHeads, int kKeys, typename Ring, typename Shared>
DT_DEVICE void AddRowKeys(Ring& ring, int at, int token, int column, int d, int scales,
                          Shared& scores, int p_at, float (&sum)[kHeads][Shape::kThreadDims]) {
  constexpr int kDims = Shape::kThreadDims;
  float v[kKeys][kDims];
  DT_UNROLL
  for (int e = 0; e < kKeys; ++e) {
    ReadNumbers<Shape::kType>(ring, at + (token + e) * Shape::kRowWords, column, v[e]);
    if constexpr (Shape::kType == KvType::kQ8_0) {
      float scale[1];
      ReadNumbers<KvType::kF16>(ring, at + kScalesAt, (token + e) * scales + d / kKvScaleElements,
                                scale);
      for (int c = 0; c < kDims; ++c) v[e][c] = scale[0] * v[e][c];
    }
  }
  constexpr int kAtOnce = kKeys < 4 ? 1 : 4;
  DT_UNROLL
  for (int from = 0; from < kKeys; from += kAtOnce) {
    DT_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      Float4 p;
      if constexpr (kAtOnce == 4) {
        p = ReadShared<Float4>(scores, p_at + h * kKvSplitTokens + from);
      } else {
        p.v[0] = scores[p_at + h * kKvSplitTokens];
      }
      DT_UNROLL
      for (int e = 0; e < kAtOnce; ++e) {
        DT_UNROLL
        for (int c = 0; c < kDims; ++c) sum[h][c] = Fma(p.v[e], v[from + e][c], sum[h][c]);
      }
    }
  }
}

// Adds those of a stage's tokens [from, past), which begin at key `first` of the split.
template <typename Shape, int kHeads, typename Ring, typename Shared>
DT_DEVICE void AddStage(Ring& ring, int at, int first, int from, int past, int column, int d,
                        int scales, Shared& scores, int p_at,
                        float (&sum)[kHeads][Shape::kThreadDims]) {
  constexpr int kWished = kHeads * Shape::kThreadDims >= 16 ? 8 : 16;
  constexpr int kMany = Shape::kStageTokens < kWished ? Shape::kStageTokens : kWished;
  const auto add = [&]<int kKeys>(int token) {
    AddRowKeys<Shape, kHeads, kKeys>(ring, at, token, column, d, scales, scores,
                                     p_at + first + token, sum);
  };
  int token = from;
  for (; token < past && token % 4 != 0; ++token) add.template operator()<1>(token);
  for (; token + kMany <= past; token += kMany) add.template operator()<kMany>(token);
  for (; token + 4 <= past; token += 4) add.template operator()<4>(token);
  for (; token < past; ++token) add.template operator()<1>(token);
}

// A head's sum of a split becomes part of what the splits before it gave, and the output behind the
// last one.
DT_DEVICE void StoreMerged(const AttentionArgs& args, const RowWork& work, int split,
                           const RowState& state, float sum, float* out) {
  float total = sum;
  if (split != work.first_split) total = Fma(sum, state.add, *out * state.keep);
  if (split + 1 == work.past_split) {
    if (args.sinks != nullptr) total = Fma(0.0f, state.sink_add, total * state.sink_keep);
    total = total / state.divisor;
  }
  *out = total;
}

// The values of a split: groups of threads have the elements of a pass, each group its own heads.
// in_parts: they become a part, else the output.
template <typename Shape, typename Ring, typename Shared, typename States>
DT_DEVICE void RowValues(const AttentionArgs& args, const RowWork& work, int split, bool in_parts,
                         int& stage, Ring& ring, Shared& scores, States& states) {
  constexpr int kDims = Shape::kThreadDims;
  constexpr int kGroups = kAttentionThreads * kDims / Shape::kPassDims;
  constexpr int kOwn = (Shape::kHeads + kGroups - 1) / kGroups;
  const int value_dim = args.kv.shape.value_dim;
  const int first_head = ThreadIndex() / (kAttentionThreads / kGroups) * kOwn;
  const int column = ThreadIndex() % (kAttentionThreads / kGroups) * kDims;
  const SplitKeys keys = KeysOf(work.task, split);
  const StageRange stages = ValueStages<Shape>(work, split);
  const int vector_dim = Shape::kByToken ? args.kv.shape.key_dim : value_dim;
  const int scales = (vector_dim + kKvScaleElements - 1) / kKvScaleElements;
  for (int pass = 0; pass < PassesOf<Shape>(args); ++pass) {
    const int d = pass * Shape::kPassDims + column;
    const bool has = d < value_dim && first_head < work.heads;
    float sum[kOwn][kDims] = {};
    for (int index = stages.first; index < stages.past; ++index) {
      const int at = NextStage(stage);
      const int first = index * Shape::kStageTokens;
      const int position = split * kKvSplitTokens + first;
      if (has) {
        AddStage<Shape, kOwn>(ring, at, first, Larger(keys.first - position, 0),
                              Smaller(keys.past - position, Shape::kStageTokens), column, d, scales,
                              scores, first_head * kKvSplitTokens, sum);
      }
    }
    if (!has) continue;
    const int head = work.first_head + first_head;
    float* out = in_parts ? PartOf(args, work.number, split, head) + kPartSum + d
                          : work.task.out + head * value_dim + d;
    const int64_t stride = in_parts ? AttentionPartSize(args.kv.shape) : value_dim;
    DT_UNROLL
    for (int h = 0; h < kOwn; ++h) {
      if (first_head + h >= work.heads) break;
      const RowState state = states[first_head + h];
      DT_UNROLL
      for (int c = 0; c < kDims; ++c) {
        if (in_parts) {
          out[h * stride + c] = sum[h][c];
        } else {
          StoreMerged(args, work, split, state, sum[h][c], out + h * stride + c);
        }
      }
    }
  }
}

// --- The kernel.

DT_DEVICE RowWork WorkOf(const AttentionArgs& args, const RowPlan& plan) {
  const int index = plan.first_task * plan.blocks_of_task.by + BlockIndex();
  const int row = index / plan.blocks_of_row;
  const int in_row = index - row * plan.blocks_of_row.by;
  const int of_row = in_row / plan.blocks_of_task;
  RowWork work;
  work.task = TaskAt(args, row, of_row * args.heads_per_task, of_row / plan.tasks_of_kv_head);
  work.number = plan.first_task + BlockIndex() / plan.blocks_of_task;
  work.blocks = work.task.sequence->blocks;
  work.first_head = (in_row - of_row * plan.blocks_of_task.by) * plan.heads;
  work.heads = Smaller(plan.heads, args.heads_per_task - work.first_head);
  work.first_split = work.task.first_key / kKvSplitTokens;
  work.past_split = (work.task.num_keys - 1) / kKvSplitTokens + 1;
  if (plan.in_parts) {
    const int split = plan.first_split + BlockIndexY();
    work.first_split = Larger(work.first_split, split);
    work.past_split = Smaller(work.past_split, split + 1);
  }
  return work;
}

// Sequences of at least `tile_rows` rows are AttentionTileKernel's.
template <KvType kType, int kHeads, bool kByToken>
DT_KERNEL void AttentionRowsKernel(AttentionArgs args, RowPlan plan, int tile_rows) {
  using Shape = RowShape<kType, kHeads, kByToken>;
  static_assert(kHeads <= kRowHeads && kHeads * Shape::kKeyDims <= kSlotWords - kQueriesAt);
  DT_SHARED(uint32_t, ring, kStages * kSlotWords);
  DT_SHARED(float, scores, kHeads* kKvSplitTokens);
  DT_SHARED(RowState, states, kHeads);
  const RowWork work = WorkOf(args, plan);
  if (work.heads <= 0 || work.first_split >= work.past_split) return;
  if (work.task.sequence->num_rows >= tile_rows) return;
  if (ThreadIndex() >= kAttentionThreads) return BringAll<Shape>(args, plan, work, ring);
  int stage = 0;
  for (int split = work.first_split; split < work.past_split; ++split) {
    RowScores<Shape>(args, work, split, stage, ring, scores);
    SyncBlockApart<kRowsThreads>();
    RowSoftmax(args, work, split, scores, states);
    SyncBlockApart<kRowsThreads>();
    if (plan.in_parts && ThreadIndex() < work.heads) {
      const RowState state = states[ThreadIndex()];
      float* const part = PartOf(args, work.number, split, work.first_head + ThreadIndex());
      part[0] = state.max;
      part[1] = state.l;
    }
    RowValues<Shape>(args, work, split, plan.in_parts, stage, ring, scores, states);
  }
}
