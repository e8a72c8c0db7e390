#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "base/philox.h"
#include "gmock/gmock.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

// The rules of sampling_params.h again, with a full sort and no shortcut.
int32_t Specification(const std::vector<float>& logits, const SamplingParams& params,
                      uint32_t position, const kernels::KernelTable& table) {
  const int32_t n = static_cast<int32_t>(logits.size());
  std::vector<int32_t> ranked(n);
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (params.temperature == 0) return ranked[0];
  std::vector<float> p(n);
  table.softmax({logits.data(), p.data(), n, 1.0f / params.temperature});
  if (params.top_k > 0 && params.top_k < n) ranked.resize(params.top_k);
  double total = 0;
  for (int32_t id : ranked) total += p[id];
  if (params.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    while (kept < ranked.size() && sum < params.top_p * total) sum += p[ranked[kept++]];
    ranked.resize(kept);
  }
  std::set<int32_t> survivors;
  for (int32_t id : ranked) {
    if (p[id] >= params.min_p * p[ranked[0]]) survivors.insert(id);
  }
  total = 0;
  for (int32_t id : survivors) total += p[id];
  const double target = PhiloxUniform(params.seed, params.choice, position) * total;
  double sum = 0;
  for (int32_t id : survivors) {
    sum += p[id];
    if (sum > target) return id;
  }
  return *survivors.rbegin();
}

class SamplerTest : public ::testing::Test {
 protected:
  int32_t Sample(const std::vector<float>& logits, const SamplingParams& params,
                 uint32_t position = 0) {
    probs_.resize(logits.size());
    ids_.resize(logits.size());
    Sampler sampler(table_, static_cast<int32_t>(logits.size()), 16, probs_.data(), ids_.data());
    return sampler.Sample(logits.data(), params, position);
  }
  int32_t Draw(std::vector<float> logits, const std::vector<LogitAdjustment>& adjustments,
               const uint32_t* mask = nullptr, const SamplingParams& params = {.temperature = 0},
               uint32_t position = 0) {
    probs_.resize(logits.size());
    ids_.resize(logits.size());
    Sampler sampler(table_, static_cast<int32_t>(logits.size()), 16, probs_.data(), ids_.data());
    return sampler.Draw(logits.data(), {adjustments, mask}, params, position, {});
  }
  // The tokens that come up in many draws, with their shares.
  std::map<int32_t, double> Shares(const std::vector<float>& logits, const SamplingParams& params) {
    constexpr int kDraws = 4000;
    std::map<int32_t, double> shares;
    for (int i = 0; i < kDraws; ++i) shares[Sample(logits, params, i)] += 1.0 / kDraws;
    return shares;
  }

  const kernels::KernelTable* table_ = *kernels::SelectTable("");
  std::vector<float> probs_;
  std::vector<int32_t> ids_;
};

std::vector<float> LogsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST_F(SamplerTest, GreedyTakesTheLowestIdOfTheLargest) {
  EXPECT_EQ(Sample({1, 3, 2, 3}, {.temperature = 0}), 1);
  EXPECT_EQ(Sample({-1, -3, -0.5f}, {.temperature = 0}), 2);
  // 1 / 1e-45 is infinite: as good as zero.
  EXPECT_EQ(Sample({1, 3, 2, 3}, {.temperature = 1e-45f}), 1);
}

TEST_F(SamplerTest, NothingIsDrawnFromNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Sample({1, nan, 2}, {.temperature = 0}), -1);
  EXPECT_EQ(Sample({1, nan, 2}, {.temperature = 1}), -1);
}

TEST_F(SamplerTest, SharesAreTheProbabilities) {
  const auto shares = Shares(LogsOf({0.5, 0.2, 0.3}), {});
  EXPECT_NEAR(shares.at(0), 0.5, 0.04);
  EXPECT_NEAR(shares.at(1), 0.2, 0.04);
  EXPECT_NEAR(shares.at(2), 0.3, 0.04);
}

TEST_F(SamplerTest, TemperatureSharpens) {
  // Squared and normalised: 0.8 and 0.2.
  const auto shares = Shares(LogsOf({2.0 / 3, 1.0 / 3}), {.temperature = 0.5f});
  EXPECT_NEAR(shares.at(0), 0.8, 0.04);
}

TEST_F(SamplerTest, TopKKeepsTheFirstOfTheRanking) {
  const std::vector<float> logits = LogsOf({0.1, 0.2, 0.3, 0.2, 0.2});
  EXPECT_EQ(Shares(logits, {.top_k = 1}).size(), 1u);
  // Of three equals the two with the lowest ids.
  const auto shares = Shares(logits, {.top_k = 3});
  EXPECT_EQ(shares.size(), 3u);
  EXPECT_EQ(shares.count(0) + shares.count(4), 0u);
  EXPECT_NEAR(shares.at(2), 0.3 / 0.7, 0.04);
  EXPECT_EQ(Shares(logits, {.top_k = 99}).size(), 5u);
}

TEST_F(SamplerTest, TopPKeepsThePrefixThatReachesIt) {
  const std::vector<float> logits = LogsOf({0.05, 0.6, 0.25, 0.1});
  EXPECT_EQ(Shares(logits, {.top_p = 0.5f}).size(), 1u);
  EXPECT_EQ(Shares(logits, {.top_p = 0.61f}).size(), 2u);
  EXPECT_EQ(Shares(logits, {.top_p = 0.9f}).size(), 3u);
  EXPECT_EQ(Shares(logits, {.top_p = 1e-9f}).size(), 1u);
  // After top_k, of what it left: 0.6 of 0.85 is 0.7.
  EXPECT_EQ(Shares(logits, {.top_p = 0.69f, .top_k = 2}).size(), 1u);
}

TEST_F(SamplerTest, MinPIsRelativeToTheFirst) {
  const std::vector<float> logits = LogsOf({0.05, 0.6, 0.25, 0.1});
  EXPECT_EQ(Shares(logits, {.min_p = 0.5f}).size(), 1u);
  EXPECT_EQ(Shares(logits, {.min_p = 0.4f}).size(), 2u);
  EXPECT_EQ(Shares(logits, {.min_p = 1.0f}).size(), 1u);
}

TEST_F(SamplerTest, AdjustmentsApplyInOrder) {
  // 2 / 2 + 0.5 = 1.5; -1 * 2 = -2; 1 + 1 - 3 = -1.
  EXPECT_EQ(Draw({2, -1, 1, 1.4f}, {{0, 0.5f, 2}, {1, 0, 2}}), 0);
  EXPECT_EQ(Draw({2, -1, 1, 1.6f}, {{0, 0.5f, 2}, {1, 0, 2}}), 3);
  EXPECT_EQ(Draw({-9, -1, -9, -9}, {{1, 0, 2}}), 1) << "still the largest";
  EXPECT_EQ(Draw({-9, -1, -1.9f, -9}, {{1, 0, 2}}), 2);
  EXPECT_EQ(Draw({0, 1, 1.5f, 0}, {{2, 1, 1}, {2, -3, 1}}), 1);
}

TEST_F(SamplerTest, ExcludedTokensAreNeverDrawn) {
  const std::vector<float> logits = LogsOf({0.1, 0.4, 0.2, 0.3});
  const uint32_t mask = 0b1101;
  std::map<int32_t, int> counts;
  for (uint32_t i = 0; i < 2000; ++i) {
    for (const SamplingParams& params :
         {SamplingParams{}, SamplingParams{.top_p = 0.99f}, SamplingParams{.top_k = 3}}) {
      ++counts[Draw(logits, {{3, -std::numeric_limits<float>::infinity(), 1}}, &mask, params, i)];
    }
  }
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_NEAR(counts[0] / 6000.0, 1.0 / 3, 0.04);
  EXPECT_NEAR(counts[2] / 6000.0, 2.0 / 3, 0.04);
}

TEST_F(SamplerTest, MasksHaveABitPerToken) {
  std::vector<float> logits(70, 0.0f);
  for (const int32_t only : {0, 31, 32, 63, 64, 69}) {
    uint32_t mask[3] = {};
    mask[only / 32] = uint32_t{1} << (only % 32);
    EXPECT_EQ(Draw(logits, {}, mask), only);
    EXPECT_EQ(Draw(logits, {}, mask, {.temperature = 1, .top_p = 0.9f}), only);
  }
}

TEST_F(SamplerTest, LogprobsAreOfTheLogitsAsTheyWere) {
  const std::vector<float> logits = LogsOf({0.1, 0.4, 0.2, 0.3});
  probs_.resize(4);
  ids_.resize(4);
  Sampler sampler(table_, 4, 16, probs_.data(), ids_.data());
  std::vector<TokenLogprob> out(4);
  std::vector<float> row = logits;
  const std::vector<LogitAdjustment> adjustments = {{2, 50, 1}, {2, 50, 1}};
  EXPECT_EQ(sampler.Draw(row.data(), {adjustments}, {.temperature = 0.01f}, 0, absl::MakeSpan(out)),
            2);
  EXPECT_EQ(out[0].token, 2);
  EXPECT_NEAR(out[0].logprob, std::log(0.2), 1e-6);
  EXPECT_EQ(out[1].token, 1);
  EXPECT_NEAR(out[1].logprob, std::log(0.4), 1e-6);
  EXPECT_EQ(out[2].token, 3);
  EXPECT_EQ(out[3].token, 2);
  sampler.Logprobs(logits.data(), 0, absl::MakeSpan(out).subspan(0, 1));
  EXPECT_EQ(out[0].token, 0);
  EXPECT_NEAR(out[0].logprob, std::log(0.1), 1e-6);
  sampler.Logprobs(logits.data(), -1, absl::MakeSpan(out).subspan(0, 1));
  EXPECT_EQ(out[0].token, -1);
}

TEST_F(SamplerTest, TopLogprobsAreTheFirstOfTheRanking) {
  std::mt19937_64 random(testing::TestSeed());
  std::vector<float> logits(500);
  for (float& x : logits) x = static_cast<float>(random() % 60);  // many ties
  std::vector<int32_t> ranked(logits.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  probs_.resize(logits.size());
  ids_.resize(logits.size());
  Sampler sampler(table_, 500, 16, probs_.data(), ids_.data());
  std::vector<TokenLogprob> out(1 + kMaxTopLogprobs);
  sampler.Logprobs(logits.data(), 7, absl::MakeSpan(out));
  for (int i = 0; i < kMaxTopLogprobs; ++i) EXPECT_EQ(out[1 + i].token, ranked[i]);
}

TEST_F(SamplerTest, SeedChoiceAndPositionDecide) {
  const std::vector<float> logits(1000, 0.0f);
  const SamplingParams params = {.seed = 5, .choice = 1};
  EXPECT_EQ(Sample(logits, params, 7), Sample(logits, params, 7));
  EXPECT_NE(Sample(logits, params, 7), Sample(logits, params, 8));
  EXPECT_NE(Sample(logits, params, 7), Sample(logits, {.seed = 6, .choice = 1}, 7));
  EXPECT_NE(Sample(logits, params, 7), Sample(logits, {.seed = 5, .choice = 2}, 7));
}

TEST_F(SamplerTest, EqualsTheSpecificationOnLargeVocabularies) {
  std::mt19937_64 random(testing::TestSeed());
  std::normal_distribution<float> normal;
  for (int round = 0; round < 60; ++round) {
    const int vocab = 10 + static_cast<int>(random() % 5000);
    const float spread = round % 3 == 0 ? 0.1f : 4.0f;
    std::vector<float> logits(vocab);
    // Rounded to quarters in some rounds, so that there are ties.
    for (float& x : logits) {
      x = spread * normal(random);
      if (round % 4 == 0) x = std::round(x * 4) / 4;
    }
    SamplingParams params;
    params.temperature = 0.25f * static_cast<float>(1 + random() % 8);
    params.top_p = random() % 2 ? 1.0f : 0.001f * static_cast<float>(1 + random() % 999);
    params.top_k = random() % 2 ? 0 : static_cast<int32_t>(1 + random() % vocab);
    params.min_p = random() % 2 ? 0.0f : 0.01f * static_cast<float>(random() % 100);
    params.seed = random();
    for (uint32_t position = 0; position < 20; ++position) {
      ASSERT_EQ(Sample(logits, params, position), Specification(logits, params, position, *table_))
          << "round " << round << " T=" << params.temperature << " top_p=" << params.top_p
          << " top_k=" << params.top_k << " min_p=" << params.min_p << " vocab=" << vocab;
    }
  }
}

TEST_F(SamplerTest, SameForEveryInstructionSet) {
  std::mt19937_64 random(testing::TestSeed());
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(3000);
  for (float& x : logits) x = normal(random);
  std::set<std::vector<int32_t>> results;
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    table_ = table;
    std::vector<int32_t> tokens;
    for (uint32_t position = 0; position < 50; ++position) {
      tokens.push_back(Sample(logits, {.top_p = 0.95f, .seed = 3}, position));
    }
    results.insert(tokens);
  }
  EXPECT_EQ(results.size(), 1u);
}

}  // namespace
}  // namespace dovetail::worker
