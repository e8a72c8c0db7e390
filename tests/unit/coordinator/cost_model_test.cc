#include "coordinator/cost_model.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

// What a machine takes for a step, in seconds.
struct Truth {
  double constant, decode, prefill, attended, experts, copy;
  int num_experts = 0, used = 0;

  double Seconds(const StepWork& work) const {
    double touched = 0;
    if (num_experts > 0) {
      touched = 1 - std::pow(1 - 1.0 * used / num_experts, work.decode_rows + work.prefill_rows);
    }
    return constant + decode * work.decode_rows + prefill * work.prefill_rows +
           attended * work.attended + experts * touched + copy * work.copies;
  }
};

StepWork Work(int decodes, int context, int chunk, int copies = 0) {
  StepWork work;
  for (int i = 0; i < decodes; ++i) work.AddDecode(context);
  if (chunk > 0) work.AddPrefill(0, chunk);
  work.copies = copies;
  return work;
}

StepWork RandomWork(std::mt19937_64* random) {
  const auto pick = [&](int low, int high) {
    return low + static_cast<int>((*random)() % static_cast<uint64_t>(high - low + 1));
  };
  const int chunk = pick(0, 3) == 0 ? 32 * pick(1, 16) : 0;
  return Work(pick(chunk > 0 ? 0 : 1, 16), pick(10, 2000), chunk,
              pick(0, 9) == 0 ? pick(1, 60) : 0);
}

void Observe(const std::vector<Truth>& workers, const StepWork& work, double noise,
             std::mt19937_64* random, CostModel* model) {
  std::vector<uint32_t> us;
  std::normal_distribution<double> normal(1, noise);
  double sum = 0;
  for (const Truth& truth : workers) {
    const double seconds = truth.Seconds(work) * std::max(0.2, normal(*random));
    us.push_back(static_cast<uint32_t>(seconds * 1e6));
    sum += seconds;
  }
  model->Observe(work, us, sum + 300e-6, true);
}

void ExpectLearned(const std::vector<Truth>& workers, const CostModel& model, double tolerance) {
  for (const StepWork& work :
       {Work(1, 500, 0), Work(16, 1000, 0), Work(0, 0, 512), Work(8, 500, 256)}) {
    double most = 0;
    double sum = 0;
    for (size_t i = 0; i < workers.size(); ++i) {
      const double truth = workers[i].Seconds(work);
      EXPECT_NEAR(model.WorkerSeconds(static_cast<int>(i), work), truth, tolerance * truth);
      most = std::max(most, truth);
      sum += truth;
    }
    EXPECT_NEAR(model.BottleneckSeconds(work), most, tolerance * most);
    EXPECT_NEAR(model.PassSeconds(work), sum + 300e-6, tolerance * sum + 100e-6);
  }
}

const std::vector<Truth> kDense = {
    {.constant = 8e-3, .decode = 1e-4, .prefill = 6e-4, .attended = 2e-8},
    {.constant = 2e-3, .decode = 4e-5, .prefill = 1e-4, .attended = 1e-8}};

TEST(CostModelTest, KnowsNothingAtFirst) {
  CostModel model({});
  EXPECT_FALSE(model.ready());
  model.SetRoute({0, 1});
  EXPECT_FALSE(model.ready());
  EXPECT_EQ(model.BottleneckSeconds(Work(1, 10, 0)), 0);
}

TEST(CostModelTest, LearnsExactTimes) {
  std::mt19937_64 random(1);
  CostModel model({});
  model.SetRoute({0, 1});
  for (int i = 0; i < 300; ++i) Observe(kDense, RandomWork(&random), 0, &random, &model);
  EXPECT_TRUE(model.ready());
  ExpectLearned(kDense, model, 0.05);
}

TEST(CostModelTest, LearnsThroughNoiseAndHiccups) {
  std::mt19937_64 random(2);
  CostModel model({});
  model.SetRoute({0, 1});
  for (int i = 0; i < 2000; ++i) {
    std::vector<Truth> now = kDense;
    if (i % 20 == 0) now[i % 2].constant += 0.5;  // the machine did something else
    Observe(now, RandomWork(&random), 0.1, &random, &model);
  }
  ExpectLearned(kDense, model, 0.2);
}

TEST(CostModelTest, FollowsAMachineThatBecameSlower) {
  std::mt19937_64 random(3);
  CostModel model({});
  model.SetRoute({0, 1});
  for (int i = 0; i < 1000; ++i) Observe(kDense, RandomWork(&random), 0.05, &random, &model);
  std::vector<Truth> slow = kDense;
  for (Truth& truth : slow) {
    truth.constant *= 3;
    truth.decode *= 3;
    truth.prefill *= 3;
    truth.attended *= 3;
  }
  for (int i = 0; i < 3000; ++i) Observe(slow, RandomWork(&random), 0.05, &random, &model);
  ExpectLearned(slow, model, 0.2);
}

TEST(CostModelTest, KnowsThatRowsShareExperts) {
  const std::vector<Truth> workers = {{.constant = 1e-3,
                                       .decode = 1e-5,
                                       .prefill = 1e-5,
                                       .attended = 1e-9,
                                       .experts = 0.2,
                                       .num_experts = 64,
                                       .used = 4}};
  std::mt19937_64 random(4);
  CostModel model({.num_experts = 64, .experts_used = 4});
  model.SetRoute({0});
  for (int i = 0; i < 1500; ++i) Observe(workers, RandomWork(&random), 0.03, &random, &model);
  ExpectLearned(workers, model, 0.1);
}

TEST(CostModelTest, PricesCopiesWhenItHasSeenThem) {
  std::vector<Truth> workers = kDense;
  workers[0].copy = 2e-4;
  std::mt19937_64 random(5);
  CostModel model({.block_copy_seconds = 0.125});
  model.SetRoute({0, 1});
  EXPECT_EQ(model.block_copy_seconds(), 0.125);
  for (int i = 0; i < 1000; ++i) Observe(workers, RandomWork(&random), 0.02, &random, &model);
  EXPECT_NEAR(model.block_copy_seconds(), 2e-4, 0.5e-4);
}

TEST(CostModelTest, AnotherRouteBeginsAgainAndTheSameDoesNot) {
  std::mt19937_64 random(6);
  CostModel model({});
  model.SetRoute({0, 1});
  for (int i = 0; i < 50; ++i) Observe(kDense, RandomWork(&random), 0, &random, &model);
  model.SetRoute({0, 1});
  EXPECT_TRUE(model.ready());
  model.Observe(Work(1, 1, 0), {1}, 1, true);  // another route's times: not looked at
  model.SetRoute({0, 1, 0});
  EXPECT_FALSE(model.ready());
  EXPECT_EQ(model.num_workers(), 2);
}

}  // namespace
}  // namespace dovetail::coordinator
