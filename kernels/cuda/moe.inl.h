// What layers with experts have besides products: the choice of experts, and the rows of each.
// After elementwise.inl.h.

// --- The router. A warp has a row; lane i has the experts that are i mod 32.

constexpr float kAboveAll = __builtin_inff();
constexpr int kMaxGroupsPerLane = 2;  // RouterArgs::num_groups

struct Candidate {
  float value;
  int32_t index;  // -1: none
};

// The greater of the two, the lower number among equals.
DT_DEVICE Candidate BetterOf(Candidate a, Candidate b) {
  if (b.index < 0) return a;
  if (a.index < 0 || b.value > a.value) return b;
  if (a.value > b.value) return a;
  return a.index < b.index ? a : b;
}

DT_DEVICE Candidate BestOfWarp(Candidate best) {
  for (int half = kWarp / 2; half > 0; half /= 2) {
    best = BetterOf(best, {ShuffleXor(best.value, half), ShuffleXor(best.index, half)});
  }
  return best;
}

// Whether a value comes after `previous` in descending order, ascending by number among equals.
// What is not a number never does.
DT_DEVICE bool ComesAfter(float value, int32_t index, Candidate previous) {
  return value < previous.value || (value == previous.value && index > previous.index);
}

DT_DEVICE float ChoiceOf(const RouterArgs& args, const float* scores, int32_t expert) {
  return args.choice_bias == nullptr ? scores[expert] : scores[expert] + args.choice_bias[expert];
}

// x[i] = exp(x[i] - max) / sum for n values.
DT_DEVICE void SoftmaxOfWarp(float* x, int n) {
  float max = -kAboveAll;
  for (int i = Lane(); i < n; i += kWarp) max = x[i] > max ? x[i] : max;
  max = WarpMax(max);
  float partial = 0.0f;
  for (int i = Lane(); i < n; i += kWarp) {
    x[i] = Exp((x[i] - max) * 1.0f);
    partial = partial + x[i];
  }
  const float sum = TreeSum(partial);
  for (int i = Lane(); i < n; i += kWarp) x[i] = x[i] / sum;
}

DT_DEVICE void MakeScores(const RouterArgs& args, float* logits) {
  if (args.score == RouterArgs::Score::kSoftmax) SoftmaxOfWarp(logits, args.count);
  if (args.score != RouterArgs::Score::kSigmoid) return;
  for (int e = Lane(); e < args.count; e += kWarp) logits[e] = 1.0f / (1.0f + Exp(-logits[e]));
}

template <typename ChoiceOfExpert>
DT_DEVICE float ScoreOfGroup(const RouterArgs& args, const ChoiceOfExpert& choice_of, int group) {
  const int size = args.count / args.num_groups;
  float best = -kAboveAll, second = -kAboveAll;
  for (int e = group * size; e < (group + 1) * size; ++e) {
    const float choice = choice_of(e);
    if (choice > best) {
      second = best;
      best = choice;
    } else if (choice > second) {
      second = choice;
    }
  }
  return args.group_max || size == 1 ? best : best + second;
}

// Bit g: group g may be chosen from.
template <typename ChoiceOfExpert>
DT_DEVICE uint64_t ChooseGroups(const RouterArgs& args, const ChoiceOfExpert& choice_of) {
  if (args.num_groups == 1) return 1;
  float score[kMaxGroupsPerLane] = {};
  for (int i = 0; i < kMaxGroupsPerLane; ++i) {
    const int group = i * kWarp + Lane();
    if (group < args.num_groups) score[i] = ScoreOfGroup(args, choice_of, group);
  }
  uint64_t chosen = 0;
  Candidate previous = {kAboveAll, -1};
  for (int n = 0; n < args.groups_used; ++n) {
    Candidate best = {0.0f, -1};
    for (int i = 0; i < kMaxGroupsPerLane; ++i) {
      const int group = i * kWarp + Lane();
      if (group >= args.num_groups || !ComesAfter(score[i], group, previous)) continue;
      best = BetterOf(best, {score[i], group});
    }
    previous = BestOfWarp(best);
    if (previous.index < 0) break;
    chosen |= uint64_t{1} << previous.index;
  }
  return chosen;
}

// Lane 0 writes the experts. Scores that are not numbers are never best: what is left is filled up
// with the lowest numbers.
DT_DEVICE void ChooseExperts(const RouterArgs& args, const float* scores, int32_t* experts) {
  const uint64_t groups = ChooseGroups(args, [&](int32_t e) { return ChoiceOf(args, scores, e); });
  const int group_size = args.count / args.num_groups;
  Candidate previous = {kAboveAll, -1};
  int chosen = 0;
  for (; chosen < args.num_used; ++chosen) {
    Candidate best = {0.0f, -1};
    for (int e = Lane(); e < args.count; e += kWarp) {
      const float choice = ChoiceOf(args, scores, e);
      const bool allowed = (groups >> (e / group_size) & 1) != 0;
      if (allowed && ComesAfter(choice, e, previous)) best = BetterOf(best, {choice, e});
    }
    previous = BestOfWarp(best);
    if (previous.index < 0) break;
    if (Lane() == 0) experts[chosen] = previous.index;
  }
  if (Lane() != 0) return;
  for (int32_t e = 0; chosen < args.num_used && e < args.count; ++e) {
    bool used = false;
    for (int i = 0; i < chosen; ++i) used = used || experts[i] == e;
    if (!used) experts[chosen++] = e;
  }
}

constexpr float kTiny = 1e-20f;  // no weight at all is no division by zero

DT_DEVICE void FinishWeights(const RouterArgs& args, float* weights) {
  if (args.score == RouterArgs::Score::kSoftmaxOfChosen) SoftmaxOfWarp(weights, args.num_used);
  SyncWarp();
  if (Lane() != 0) return;
  if (args.normalise) {
    float sum = 0.0f;
    for (int i = 0; i < args.num_used; ++i) sum = sum + weights[i];
    for (int i = 0; i < args.num_used; ++i) weights[i] = weights[i] / (sum + kTiny);
  }
  for (int i = 0; i < args.num_used; ++i) weights[i] = weights[i] * args.scale;
}

// Lane 0 writes the weight of the shared expert.
DT_DEVICE void WeighSharedExpert(const RouterArgs& args, int64_t row, float* weights) {
  if (args.slots == args.num_used || Lane() != 0) return;
  weights[args.num_used] = args.gate == nullptr ? 1.0f : 1.0f / (1.0f + Exp(-args.gate[row]));
}

// Any number of experts, in global memory; fewer: router.inl.h.
DT_KERNEL void RouterKernel(RouterArgs args, int64_t begin, int64_t end) {
  const int64_t row = begin + GlobalWarp();
  if (row >= end) return;
  float* weights = args.weights + row * args.slots;
  if (args.logits != nullptr) {
    float* scores = args.logits + row * args.count;
    int32_t* experts = args.experts + row * args.num_used;
    MakeScores(args, scores);
    SyncWarp();
    ChooseExperts(args, scores, experts);
    SyncWarp();
    for (int i = Lane(); i < args.num_used; i += kWarp) weights[i] = scores[experts[i]];
    SyncWarp();
    FinishWeights(args, weights);
  }
  WeighSharedExpert(args, row, weights);
}

// --- Pairs. One block; a thread has a place at a time, and finds its pairs in order.

constexpr int kSortThreads = 256;
constexpr int kPairsAtOnce = 1024;

// Runs fn(pair) for the pairs of `place`, all of them in order; all threads take part.
template <typename Shared, typename Fn>
DT_DEVICE void ForPairsOf(const SortPairsArgs& args, int place, Shared& places, const Fn& fn) {
  const int num_pairs = args.rows * args.num_used;
  for (int first = 0; first < num_pairs; first += kPairsAtOnce) {
    const int count = Smaller(kPairsAtOnce, num_pairs - first);
    SyncBlock();
    for (int i = ThreadIndex(); i < count; i += kSortThreads) {
      places[i] = args.place_of[args.experts[first + i]];
    }
    // Four at a time; behind the last one is no place.
    const int padded = (count + 3) / 4 * 4;
    if (count + ThreadIndex() < padded) places[count + ThreadIndex()] = -1;
    SyncBlock();
    for (int i = 0; i < padded; i += 4) {
      const auto four = ReadShared<Int4>(places, i);
      if (four.x == place) fn(first + i);
      if (four.y == place) fn(first + i + 1);
      if (four.z == place) fn(first + i + 2);
      if (four.w == place) fn(first + i + 3);
    }
  }
}

// The sum of `value` over the threads before this one, and over all of them.
struct BlockSum {
  int32_t before, all;
};
template <typename Shared>
DT_DEVICE BlockSum SumBefore(int32_t value, Shared& sums) {
  int32_t sum = value;  // of this lane and those before it
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t other = Shuffle(sum, Lane() - step);
    if (Lane() >= step) sum += other;
  }
  SyncBlock();
  if (Lane() == kWarp - 1) sums[WarpIndex()] = sum;
  SyncBlock();
  BlockSum result = {sum - value, 0};
  for (int warp = 0; warp < kSortThreads / kWarp; ++warp) {
    const int32_t of_warp = sums[warp];
    if (warp < WarpIndex()) result.before += of_warp;
    result.all += of_warp;
  }
  return result;
}

DT_DEVICE void WriteGroups(const SortPairsArgs& args, int place, int32_t begin, int32_t own_begin,
                           int32_t count, int32_t group) {
  for (int32_t first = 0; first < count; first += args.max_group_rows) {
    args.groups[group++] = {place - args.first_place, begin - own_begin + first,
                            Smaller(args.max_group_rows, count - first),
                            args.first_pair_row + begin + first};
  }
}

DT_KERNEL void SortPairsKernel(SortPairsArgs args) {
  DT_SHARED(int32_t, places, kPairsAtOnce);
  DT_SHARED(int32_t, sums, kSortThreads / kWarp);
  DT_SHARED(int32_t, own_begin, 1);
  int32_t pairs_before = 0, groups_before = 0;
  for (int first = 0; first < args.count; first += kSortThreads) {
    const int place = first + ThreadIndex();
    const bool own = place >= args.first_place && place < args.past_place;
    int32_t count = 0;
    ForPairsOf(args, place, places, [&](int) { ++count; });
    const BlockSum pairs = SumBefore(count, sums);
    const int32_t num_groups = own ? static_cast<int32_t>(CeilDiv(count, args.max_group_rows)) : 0;
    const BlockSum groups = SumBefore(num_groups, sums);
    const int32_t begin = pairs_before + pairs.before;
    if (place < args.count) args.begin[place] = begin;
    if (place == args.first_place) own_begin[0] = begin;
    SyncBlock();
    if (own) {
      WriteGroups(args, place, begin, own_begin[0], count, groups_before + groups.before);
    }
    int32_t pair = begin;
    ForPairsOf(args, place, places, [&](int i) {
      const int row = i / args.num_used, slot = i % args.num_used;
      if (own) args.pair_rows[pair - own_begin[0]] = row;
      args.slot_sources[int64_t{row} * args.slots + slot] = args.first_pair_row + pair;
      ++pair;
    });
    pairs_before += pairs.all;
    groups_before += groups.all;
  }
  if (ThreadIndex() == 0) {
    args.begin[args.count] = pairs_before;
    *args.num_groups = groups_before;
  }
  if (args.slots == args.num_used) return;
  for (int row = ThreadIndex(); row < args.rows; row += kSortThreads) {
    args.slot_sources[int64_t{row} * args.slots + args.num_used] = row;
  }
}

// --- Rows: blocks x, which share columns with blocks y. A thread has 16 columns.

constexpr int kGatherPer = 16;

DT_DEVICE void GatherFloats(const float* from, float* to, int cols) {
  const int first = BlockIndexY() * kGatherPer * BlockThreads() + ThreadIndex();
  float values[kGatherPer];
  DT_UNROLL
  for (int i = 0; i < kGatherPer; ++i) {
    const int col = first + i * BlockThreads();
    values[i] = col < cols ? from[col] : 0.0f;
  }
  DT_UNROLL
  for (int i = 0; i < kGatherPer; ++i) {
    const int col = first + i * BlockThreads();
    if (col < cols) to[col] = values[i];
  }
}

DT_KERNEL void GatherRowsKernel(GatherRowsArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int32_t first = *args.first;
  if (row >= *args.past - first) return;
  const int64_t source = args.rows[row];
  const Activations &from = args.from, &to = args.to;
  if (to.block == 0) {
    return GatherFloats(from.f32 + source * from.f32_stride,
                        args.to_f32 + (args.first_to_row + first + row) * to.cols, to.cols);
  }
  const int i = ColumnOfThread<1>();
  if (i >= to.cols / kGatherPer) return;
  const auto q = LoadVector<Int4>(from.q + source * from.q_stride + kGatherPer * i);
  const int16_t bsum = from.bsum[source * from.bsum_stride + i];
  const bool has_scale = i < to.cols / to.block;
  const float d = has_scale ? from.d[source * from.d_stride + i] : 0.0f;
  StoreVector16(to.q + row * to.q_stride + kGatherPer * i, q);
  to.bsum[row * to.bsum_stride + i] = bsum;
  if (has_scale) to.d[row * to.d_stride + i] = d;
}
