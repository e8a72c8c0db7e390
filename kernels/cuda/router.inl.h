// The choice of experts where there are few: a warp has a row, whose scores stay in registers. Lane
// i has the experts that are i mod 32 and, once it is chosen, the i-th that is used. After
// moe.inl.h.

// x[.] = exp(x[.] - max) / sum for n values.
template <int kPerLane>
DT_DEVICE void SoftmaxOfLanes(float (&x)[kPerLane], int n) {
  float max = -kAboveAll;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    if (j * kWarp + Lane() < n) max = x[j] > max ? x[j] : max;
  }
  max = WarpMax(max);
  float partial = 0.0f;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    x[j] = Exp((x[j] - max) * 1.0f);
    if (j * kWarp + Lane() < n) partial = partial + x[j];
  }
  const float sum = TreeSum(partial);
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) x[j] = x[j] / sum;
}

// What an expert is chosen by, or NaN: it may not be.
template <int kPerLane>
struct Experts {
  float score[kPerLane];
  float choice[kPerLane];
};

template <int kPerLane>
DT_DEVICE Experts<kPerLane> ScoreExperts(const RouterArgs& args, const float* logits) {
  Experts<kPerLane> experts;
  float bias[kPerLane];
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + Lane();
    experts.score[j] = e < args.count ? logits[e] : 0.0f;
    bias[j] = e < args.count && args.choice_bias != nullptr ? args.choice_bias[e] : 0.0f;
  }
  if (args.score == RouterArgs::Score::kSoftmax) SoftmaxOfLanes(experts.score, args.count);
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    float& score = experts.score[j];
    if (args.score == RouterArgs::Score::kSigmoid) score = 1.0f / (1.0f + Exp(-score));
    const float choice = args.choice_bias != nullptr ? score + bias[j] : score;
    experts.choice[j] = j * kWarp + Lane() < args.count ? choice : __builtin_nanf("");
  }
  return experts;
}

// Leaves the experts of the best groups to choose from. `choices`: what all lanes have, from
// `begin` on.
template <int kPerLane, typename Shared>
DT_DEVICE void LeaveBestGroups(const RouterArgs& args, Shared& choices, int begin,
                               Experts<kPerLane>& experts) {
  if (args.num_groups == 1) return;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) choices[begin + j * kWarp + Lane()] = experts.choice[j];
  SyncWarp();
  const uint64_t groups =
      ChooseGroups(args, [&](int32_t e) -> float { return choices[begin + e]; });
  const int size = args.count / args.num_groups;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + Lane();
    const bool allowed = e < args.count && (groups >> (e / size) & 1) != 0;
    if (!allowed) experts.choice[j] = __builtin_nanf("");
  }
}

// The expert that this lane's number says, and its score.
struct UsedExpert {
  int32_t expert;
  float score;
};

template <int kPerLane>
DT_DEVICE float ScoreOf(const Experts<kPerLane>& experts, int expert) {
  float score = 0.0f;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) score = expert / kWarp == j ? experts.score[j] : score;
  return Shuffle(score, expert % kWarp);
}

// Scores that are not numbers are never best: what is left is filled up with the lowest numbers.
template <int kPerLane>
DT_DEVICE UsedExpert ChooseUsed(const RouterArgs& args, const Experts<kPerLane>& experts) {
  UsedExpert used = {-1, 0.0f};
  Candidate previous = {kAboveAll, -1};
  int chosen = 0;
  for (; chosen < args.num_used; ++chosen) {
    Candidate best = {0.0f, -1};
    float score = 0.0f;
    DT_UNROLL
    for (int j = 0; j < kPerLane; ++j) {
      const float choice = experts.choice[j];
      const int e = j * kWarp + Lane();
      const bool better = best.index < 0 || choice > best.value;
      if (!better || !ComesAfter(choice, e, previous)) continue;
      best = {choice, e};
      score = experts.score[j];
    }
    previous = BestOfWarp(best);
    if (previous.index < 0) break;
    score = Shuffle(score, previous.index % kWarp);
    if (Lane() == chosen) used = {previous.index, score};
  }
  for (int32_t e = 0; chosen < args.num_used && e < args.count; ++e) {
    if (Ballot(used.expert == e) != 0) continue;
    const float score = ScoreOf(experts, e);
    if (Lane() == chosen) used = {e, score};
    ++chosen;
  }
  return used;
}

// The weight of this lane's expert.
DT_DEVICE float WeighUsed(const RouterArgs& args, float score) {
  float weight[1] = {score};
  if (args.score == RouterArgs::Score::kSoftmaxOfChosen) SoftmaxOfLanes(weight, args.num_used);
  if (args.normalise) {
    float sum = 0.0f;
    for (int i = 0; i < args.num_used; ++i) sum = sum + Shuffle(weight[0], i);
    weight[0] = weight[0] / (sum + kTiny);
  }
  return weight[0] * args.scale;
}

// At most 32 kPerLane experts, of which at most 32 are used.
template <int kPerLane>
DT_KERNEL void RouterLanesKernel(RouterArgs args, int64_t begin, int64_t end) {
  DT_SHARED(float, choices, kRowThreads* kPerLane);
  const int64_t row = begin + GlobalWarp();
  if (row >= end) return;
  auto experts = ScoreExperts<kPerLane>(args, args.logits + row * args.count);
  LeaveBestGroups(args, choices, WarpIndex() * kWarp * kPerLane, experts);
  const UsedExpert used = ChooseUsed(args, experts);
  const float weight = WeighUsed(args, used.score);
  float* weights = args.weights + row * args.slots;
  if (Lane() < args.num_used) {
    args.experts[row * args.num_used + Lane()] = used.expert;
    weights[Lane()] = weight;
  }
  WeighSharedExpert(args, row, weights);
}
