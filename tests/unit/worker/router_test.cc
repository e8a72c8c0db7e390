// The choice of experts against the published rules, written plainly in f64.
#include "worker/cpu/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

using model::ExpertConfig;
using model::GroupScore;
using model::RouterScore;
using ::testing::ElementsAre;

struct Choice {
  std::vector<int32_t> experts;
  std::vector<double> weights;
};

Choice Choose(const ExpertConfig& config, std::vector<float> logits,
              const std::vector<float>& bias = {}) {
  std::vector<int32_t> experts(config.num_used);
  std::vector<float> weights(config.num_used);
  ChooseExperts(*kernels::AvailableTables().back(), config, bias.empty() ? nullptr : bias.data(),
                logits.data(), experts.data(), weights.data());
  return {experts, {weights.begin(), weights.end()}};
}

void Softmax(std::vector<double>* x) {
  const double max = *std::max_element(x->begin(), x->end());
  double sum = 0;
  for (double& v : *x) sum += v = std::exp(v - max);
  for (double& v : *x) v /= sum;
}

Choice Published(const ExpertConfig& config, const std::vector<float>& logits,
                 const std::vector<float>& bias) {
  std::vector<double> scores(logits.begin(), logits.end());
  if (config.score == RouterScore::kSoftmax) Softmax(&scores);
  if (config.score == RouterScore::kSigmoid) {
    for (double& s : scores) s = 1 / (1 + std::exp(-s));
  }
  std::vector<double> choice = scores;
  for (size_t e = 0; e < bias.size(); ++e) choice[e] += bias[e];
  const int size = config.count / config.num_groups;
  std::vector<double> groups;
  for (int g = 0; g < config.num_groups; ++g) {
    std::vector<double> of(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(of.rbegin(), of.rend());
    groups.push_back(config.group_score == GroupScore::kMax || size == 1 ? of[0] : of[0] + of[1]);
  }
  std::vector<int> by_group(config.num_groups), by_expert(config.count);
  std::iota(by_group.begin(), by_group.end(), 0);
  std::stable_sort(by_group.begin(), by_group.end(),
                   [&](int a, int b) { return groups[a] > groups[b]; });
  const std::set<int> used(by_group.begin(), by_group.begin() + config.groups_used);
  std::iota(by_expert.begin(), by_expert.end(), 0);
  std::stable_sort(by_expert.begin(), by_expert.end(),
                   [&](int a, int b) { return choice[a] > choice[b]; });
  Choice result;
  for (int e : by_expert) {
    if (used.count(e / size) == 0) continue;
    if (static_cast<int>(result.experts.size()) == config.num_used) break;
    result.experts.push_back(e);
    result.weights.push_back(scores[e]);
  }
  if (config.score == RouterScore::kSoftmaxOfChosen) Softmax(&result.weights);
  const double sum = std::accumulate(result.weights.begin(), result.weights.end(), 0.0);
  for (double& w : result.weights) w = (config.normalise ? w / sum : w) * config.scale;
  return result;
}

TEST(RouterTest, ChoosesAsPublished) {
  std::mt19937 random(static_cast<uint32_t>(testing::TestSeed()));
  std::normal_distribution<float> normal(0, 2);
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSoftmaxOfChosen}) {
    for (const GroupScore group_score : {GroupScore::kMax, GroupScore::kSumOfTwo}) {
      for (int trial = 0; trial < 40; ++trial) {
        ExpertConfig config = {.count = 24,
                               .num_used = 1 + trial % 6,
                               .score = score,
                               .normalise = trial % 2 == 0,
                               .scale = trial % 3 == 0 ? 2.5f : 1.0f,
                               .group_score = group_score};
        if (trial % 4 == 1) config.num_groups = 8, config.groups_used = 3;
        std::vector<float> logits(24), bias(trial % 5 < 2 ? 24 : 0);
        for (float& l : logits) l = normal(random);
        for (float& b : bias) b = 0.3f * normal(random);
        const Choice expected = Published(config, logits, bias);
        const Choice actual = Choose(config, logits, bias);
        ASSERT_EQ(actual.experts, expected.experts) << trial;
        for (size_t i = 0; i < expected.weights.size(); ++i) {
          EXPECT_NEAR(actual.weights[i], expected.weights[i], 1e-6) << trial << " " << i;
        }
      }
    }
  }
}

TEST(RouterTest, TiesGoToTheLowerNumber) {
  const ExpertConfig config = {.count = 6, .num_used = 4};
  EXPECT_THAT(Choose(config, {1, 2, 2, 1, 2, 0}).experts, ElementsAre(1, 2, 4, 0));
  const std::vector<float> equal(6, 0.25f);
  EXPECT_THAT(Choose(config, equal).experts, ElementsAre(0, 1, 2, 3));
  ExpertConfig groups = {.count = 6, .num_used = 2, .num_groups = 3, .groups_used = 1};
  EXPECT_THAT(Choose(groups, equal).experts, ElementsAre(0, 1));
}

TEST(RouterTest, TheBiasChoosesButDoesNotWeigh) {
  const ExpertConfig config = {.count = 3, .num_used = 1, .score = RouterScore::kSigmoid};
  const Choice choice = Choose(config, {2, 0, 1}, {0, 1, 0});
  EXPECT_THAT(choice.experts, ElementsAre(1));
  EXPECT_EQ(choice.weights[0], 0.5);
}

// The step fails elsewhere; here nothing may be read or written out of bounds.
TEST(RouterTest, LogitsThatAreNoNumbersGiveValidExperts) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSoftmaxOfChosen}) {
    for (const std::vector<float>& logits : {std::vector<float>(8, nan),
                                             std::vector<float>(8, inf),
                                             {nan, 1, 2, nan, inf, -inf, 0, nan}}) {
      ExpertConfig config = {.count = 8, .num_used = 5, .score = score};
      for (int groups : {1, 2}) {
        config.num_groups = config.groups_used = groups;
        const std::vector<int32_t> experts = Choose(config, logits).experts;
        for (int32_t e : experts) {
          EXPECT_GE(e, 0);
          EXPECT_LT(e, 8);
        }
        EXPECT_EQ(std::set<int32_t>(experts.begin(), experts.end()).size(), 5u);
      }
    }
  }
}

}  // namespace
}  // namespace dovetail::worker
