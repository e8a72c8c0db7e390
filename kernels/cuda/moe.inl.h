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

DT_DEVICE float ScoreOfGroup(const RouterArgs& args, const float* scores, int group) {
  const int size = args.count / args.num_groups;
  float best = -kAboveAll, second = -kAboveAll;
  for (int e = group * size; e < (group + 1) * size; ++e) {
    const float choice = ChoiceOf(args, scores, e);
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
DT_DEVICE uint64_t ChooseGroups(const RouterArgs& args, const float* scores) {
  if (args.num_groups == 1) return 1;
  float score[kMaxGroupsPerLane] = {};
  for (int i = 0; i < kMaxGroupsPerLane; ++i) {
    const int group = i * kWarp + Lane();
    if (group < args.num_groups) score[i] = ScoreOfGroup(args, scores, group);
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
  const uint64_t groups = ChooseGroups(args, scores);
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

DT_DEVICE void FinishWeights(const RouterArgs& args, float* weights) {
  constexpr float kTiny = 1e-20f;  // no weight at all is no division by zero
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
  if (args.slots == args.num_used || Lane() != 0) return;
  weights[args.num_used] = args.gate == nullptr ? 1.0f : 1.0f / (1.0f + Exp(-args.gate[row]));
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
    SyncBlock();
    for (int i = 0; i < count; ++i) {
      if (places[i] == place) fn(first + i);
    }
  }
}

// The sum of `value` over the threads before this one, and over all of them.
struct BlockSum {
  int32_t before, all;
};
template <typename Shared>
DT_DEVICE BlockSum SumBefore(int32_t value, Shared& sums) {
  const int me = ThreadIndex();
  int32_t sum = value;
  SyncBlock();
  sums[me] = sum;
  for (int step = 1; step < kSortThreads; step *= 2) {
    SyncBlock();
    const int32_t other = me >= step ? sums[me - step] : 0;
    SyncBlock();
    sum += other;
    sums[me] = sum;
  }
  SyncBlock();
  return {sum - value, sums[kSortThreads - 1]};
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
  DT_SHARED(int32_t, sums, kSortThreads);
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

// A block for each row.
DT_KERNEL void GatherRowsKernel(GatherRowsArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  if (row >= *args.past - *args.first) return;
  const int64_t source = args.rows[row];
  const Activations &from = args.from, &to = args.to;
  if (to.block == 0) {
    const float* x = from.f32 + source * from.f32_stride;
    float* y = args.to_f32 + (args.first_to_row + *args.first + row) * to.cols;
    for (int i = ThreadIndex(); i < to.cols; i += BlockThreads()) y[i] = x[i];
    return;
  }
  for (int i = ThreadIndex(); i < to.cols / 16; i += BlockThreads()) {
    const Int4 q = LoadVector<Int4>(from.q + source * from.q_stride + 16 * i);
    StoreVector16(to.q + row * to.q_stride + 16 * i, q);
    to.bsum[row * to.bsum_stride + i] = from.bsum[source * from.bsum_stride + i];
  }
  for (int i = ThreadIndex(); i < to.cols / to.block; i += BlockThreads()) {
    to.d[row * to.d_stride + i] = from.d[source * from.d_stride + i];
  }
}
