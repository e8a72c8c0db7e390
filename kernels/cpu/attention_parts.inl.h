// Attention in two phases, for contexts that threads share: splits apart from each other, then
// merged in order; the same operations as attention.inl.h, so the same bits. Included once, inside
// the instruction set's namespace, after it.

// The queries of a task, which are at most kQueryBatch. Returns the row's sequence.
static inline const SequenceRows& FillTask(const AttentionArgs& args, int64_t task,
                                           QueryBatch* batch) {
  const int groups = args.num_heads / args.heads_per_task;
  const int64_t row = task / groups;
  const SequenceRows& sequence = *FindSequence(args.sequences, args.num_sequences, row);
  const int first_head = static_cast<int>(task % groups) * args.heads_per_task;
  for (int head = first_head; head < first_head + args.heads_per_task; ++head) {
    AddQuery(args, sequence, row, head, batch);
  }
  return sequence;
}

static void AttentionParts(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end) {
  QueryBatch batch = EmptyBatch(args);
  const SequenceRows& sequence = FillTask(args, task, &batch);
  TransposeIfLatent(args, batch);
  const int groups = args.num_heads / args.heads_per_task;
  const int kv_head = KvHeadOf(args, static_cast<int>(task % groups) * args.heads_per_task);
  const int max_keys = batch.num_keys[0];
  const int64_t first = batch.first_key[0] / kKvSplitTokens;
  for (int64_t split = begin < first ? first : begin; split < end; ++split) {
    const int from = static_cast<int>(split * kKvSplitTokens);
    if (from >= max_keys) break;
    const int past = max_keys - from < kKvSplitTokens ? max_keys : from + kKvSplitTokens;
    SumSplit(args, sequence, kv_head, from, past, max_keys, &batch);
    for (int t = 0; t < batch.count; ++t) {
      float* part = PartOf(args, task, split, t);
      part[0] = batch.max[t];
      part[1] = batch.l[t];
      const float* sum = batch.scratch.split + t * batch.dim;
      for (int64_t d = 0; d < batch.dim; d += 16) Store(part + kPartSum + d, Load(sum + d));
    }
  }
}

static void AttentionMerge(const AttentionArgs& args, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    QueryBatch batch = EmptyBatch(args);
    FillTask(args, task, &batch);
    const int64_t first = batch.first_key[0] / kKvSplitTokens;
    for (int64_t split = first; split * kKvSplitTokens < batch.num_keys[0]; ++split) {
      for (int t = 0; t < batch.count; ++t) {
        const float* part = PartOf(args, task, split, t);
        batch.max[t] = part[0];
        batch.l[t] = part[1];
        MergeSplit(&batch, t, part + kPartSum, /*is_first=*/split == first);
      }
    }
    FinishBatch(args, &batch);
  }
}
