#include "worker/cpu/router.h"

#include <algorithm>
#include <limits>

namespace dovetail::worker {
namespace {

using model::ExpertConfig;
using model::GroupScore;
using model::RouterScore;

// Bit g: group g may be chosen from. Families have at most 8.
using GroupMask = uint64_t;

// The candidate that comes next after (`previous`, `previous_id`) in descending order of value,
// ascending id among equals; -1 where there is none.
template <typename ValueOf, typename IsCandidate>
int32_t NextBest(int32_t count, float previous, int32_t previous_id, const ValueOf& value_of,
                 const IsCandidate& is_candidate) {
  int32_t best = -1;
  float best_value = 0;
  for (int32_t i = 0; i < count; ++i) {
    const float value = value_of(i);
    const bool after = value < previous || (value == previous && i > previous_id);
    if (!after || (best >= 0 && !(value > best_value)) || !is_candidate(i)) continue;
    best = i;
    best_value = value;
  }
  return best;
}

constexpr float kAboveAll = std::numeric_limits<float>::infinity();

template <typename ChoiceOf>
float ScoreOfGroup(const ExpertConfig& config, int32_t group, const ChoiceOf& choice_of) {
  const int32_t size = config.count / config.num_groups;
  float best = -kAboveAll, second = -kAboveAll;
  for (int32_t e = group * size; e < (group + 1) * size; ++e) {
    const float choice = choice_of(e);
    if (choice > best) {
      second = best;
      best = choice;
    } else if (choice > second) {
      second = choice;
    }
  }
  return config.group_score == GroupScore::kMax || size == 1 ? best : best + second;
}

template <typename ChoiceOf>
GroupMask ChooseGroups(const ExpertConfig& config, const ChoiceOf& choice_of) {
  GroupMask chosen = 0;
  float previous = kAboveAll;
  int32_t previous_id = -1;
  const auto score_of = [&](int32_t group) { return ScoreOfGroup(config, group, choice_of); };
  for (int32_t i = 0; i < config.groups_used; ++i) {
    const int32_t group =
        NextBest(config.num_groups, previous, previous_id, score_of, [](int32_t) { return true; });
    if (group < 0) break;
    chosen |= GroupMask{1} << group;
    previous = score_of(group);
    previous_id = group;
  }
  return chosen;
}

void MakeScores(const kernels::KernelTable& kernels, const ExpertConfig& config, float* logits) {
  switch (config.score) {
    case RouterScore::kSoftmax: {
      const float sum = kernels.softmax(
          {.x = logits, .p = logits, .cols = config.count, .inv_temperature = 1.0f});
      for (int32_t e = 0; e < config.count; ++e) logits[e] /= sum;
      return;
    }
    case RouterScore::kSigmoid:
      return kernels.sigmoid(logits, logits, config.count);
    case RouterScore::kSoftmaxOfChosen:
      return;
  }
}

void FinishWeights(const kernels::KernelTable& kernels, const ExpertConfig& config,
                   float* weights) {
  constexpr float kTiny = 1e-20f;  // no weight at all is no division by zero
  if (config.score == RouterScore::kSoftmaxOfChosen) {
    const float sum = kernels.softmax(
        {.x = weights, .p = weights, .cols = config.num_used, .inv_temperature = 1.0f});
    for (int32_t i = 0; i < config.num_used; ++i) weights[i] /= sum;
  }
  if (config.normalise) {
    float sum = 0;
    for (int32_t i = 0; i < config.num_used; ++i) sum += weights[i];
    for (int32_t i = 0; i < config.num_used; ++i) weights[i] /= sum + kTiny;
  }
  for (int32_t i = 0; i < config.num_used; ++i) weights[i] *= config.scale;
}

}  // namespace

void ChooseExperts(const kernels::KernelTable& kernels, const ExpertConfig& config,
                   const float* choice_bias, float* logits, int32_t* experts, float* weights) {
  MakeScores(kernels, config, logits);
  const auto choice_of = [&](int32_t e) {
    return choice_bias == nullptr ? logits[e] : logits[e] + choice_bias[e];
  };
  const int32_t group_size = config.count / config.num_groups;
  const GroupMask groups = config.num_groups == 1 ? GroupMask{1} : ChooseGroups(config, choice_of);
  float previous = kAboveAll;
  int32_t previous_id = -1;
  int32_t chosen = 0;
  for (; chosen < config.num_used; ++chosen) {
    const int32_t expert = NextBest(config.count, previous, previous_id, choice_of, [&](int32_t e) {
      return (groups >> (e / group_size) & 1) != 0;
    });
    if (expert < 0) break;
    experts[chosen] = expert;
    previous = choice_of(expert);
    previous_id = expert;
  }
  // What cannot be compared is never best.
  for (int32_t e = 0; chosen < config.num_used && e < config.count; ++e) {
    if (std::find(experts, experts + chosen, e) == experts + chosen) experts[chosen++] = e;
  }
  for (int32_t i = 0; i < config.num_used; ++i) weights[i] = logits[experts[i]];
  FinishWeights(kernels, config, weights);
}

}  // namespace dovetail::worker
