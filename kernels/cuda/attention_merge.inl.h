// The merge of what splits gave (AttentionPartsKernel, AttentionRowsKernel). After attention.inl.h.
//
// The factors of a merge follow from the largest scores alone, so the threads of a block make those
// of as many splits at once; then each merges the splits from left to right for its element.

constexpr int kMergeLoads = 16;  // splits whose sums are under way while others are merged

// The largest of v and those of the lanes before this one: where several are equal, the first.
DT_DEVICE float RunningMax(float v) {
  for (int step = 1; step < kWarp; step *= 2) {
    const float before = Shuffle(v, (Lane() - step) & (kWarp - 1));
    if (Lane() >= step) v = v > before ? v : before;
  }
  return v;
}

// factors[t], of kAttentionThreads splits at most: keep, add, and the split's l. `max`: of the
// splits before them; becomes that behind them. By all threads, each with its split's max and l.
template <typename Factors, typename Maxima>
DT_DEVICE void MakeFactors(float split_max, float split_l, float& max, Factors& factors,
                           Maxima& maxima) {
  float running = RunningMax(split_max);
  SyncBlock();  // what was there has been read
  if (Lane() == kWarp - 1) maxima[WarpIndex()] = running;
  SyncBlock();
  float before = max;
  for (int warp = 0; warp < kAttentionWarps; ++warp) {
    const float of_warp = maxima[warp];
    if (warp < WarpIndex()) before = of_warp > before ? of_warp : before;
    max = of_warp > max ? of_warp : max;
  }
  running = running > before ? running : before;
  float previous = Shuffle(running, (Lane() - 1) & (kWarp - 1));
  if (Lane() == 0) previous = before;
  const Float4 own = {
      {AttentionWeight(previous - running), AttentionWeight(split_max - running), split_l, 0.0f}};
  WriteShared(factors, 4 * ThreadIndex(), own);
  SyncBlock();
}

// Where the sums of a split lie, of a head: the last one's where there is none of that number.
DT_DEVICE const float* PartAt(const float* first_part, int stride, int split, int past) {
  return first_part + Smaller(split, past - 1) * stride;
}

// Block x: a task from `begin` on; block y: one of its heads and kAttentionThreads elements.
DT_KERNEL void AttentionMergeKernel(AttentionArgs args, int32_t begin, Divisor tasks_of_row,
                                    Divisor chunks) {
  DT_SHARED(float, factors, 4 * kAttentionThreads);
  DT_SHARED(float, maxima, kAttentionWarps);
  const int index = begin + BlockIndex();
  const int row = index / tasks_of_row;
  const int of_row = index - row * tasks_of_row.by;
  // Of which KV head plays no part here.
  const AttentionTask task = TaskAt(args, row, of_row * args.heads_per_task, 0);
  const int value_dim = args.kv.shape.value_dim;
  const int head = BlockIndexY() / chunks;
  const int d = (BlockIndexY() - head * chunks.by) * kAttentionThreads + ThreadIndex();
  const int first = task.first_key / kKvSplitTokens;
  const int past = (task.num_keys - 1) / kKvSplitTokens + 1;
  const float* const parts = PartOf(args, index, 0, head);
  const int stride = args.heads_per_task * static_cast<int>(AttentionPartSize(args.kv.shape));
  const int own_d = kPartSum + Smaller(d, value_dim - 1);
  float ahead[kMergeLoads];
  DT_UNROLL
  for (int i = 0; i < kMergeLoads; ++i) {
    ahead[i] = PartAt(parts, stride, first + i, past)[own_d];
  }
  float max = -FloatOf(0x7f800000u), l = 0.0f, total = 0.0f;
  for (int from = first; from < past; from += kAttentionThreads) {
    const float* const part = PartAt(parts, stride, from + ThreadIndex(), past);
    MakeFactors(part[0], part[1], max, factors, maxima);
    const int count = Smaller(kAttentionThreads, past - from);
    for (int group = 0; group < count; group += kMergeLoads) {
      float sums[kMergeLoads];
      DT_UNROLL
      for (int i = 0; i < kMergeLoads; ++i) {
        sums[i] = ahead[i];
        ahead[i] = PartAt(parts, stride, from + group + kMergeLoads + i, past)[own_d];
      }
      DT_UNROLL
      for (int i = 0; i < kMergeLoads; ++i) {
        if (group + i >= count) break;
        const Float4 factor = ReadShared<Float4>(factors, 4 * (group + i));
        const bool is_first = from + group + i == first;
        total = is_first ? sums[i] : Fma(sums[i], factor.v[1], total * factor.v[0]);
        l = is_first ? factor.v[2] : Fma(factor.v[2], factor.v[1], l * factor.v[0]);
      }
    }
  }
  if (d < value_dim) {
    task.out[int64_t{head} * value_dim + d] = Finished(args, task.head + head, max, l, total);
  }
}
