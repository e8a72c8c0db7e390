#include "coordinator/plan_members.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

class PlanMembersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat(::testing::TempDir(), "/plan-members-", ::getpid());
    std::filesystem::create_directories(dir_);
    testing::WriteTinyLlama(dir_ + "/tiny.gguf");
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(dir_ + "/tiny.gguf"));
    ASSERT_OK_AND_ASSIGN(config_, model::LoadModelConfig(*file_));
    ASSERT_OK_AND_ASSIGN(run_dir_, transport::RunDir::Create(dir_ + "/run"));
    inputs_.config = &config_;
    inputs_.file = file_.get();
    inputs_.run_dir = run_dir_.get();
    inputs_.shape.max_rows = 16;
    inputs_.shape.max_sequences = 2;
    inputs_.shape.max_logit_rows = 2;
    inputs_.shape.context_length = 64;
    inputs_.shape.num_kv_blocks = 4;
  }
  void TearDown() override {
    run_dir_->RemoveAll();
    std::filesystem::remove_all(dir_);
  }

  static std::vector<ClusterMember> Members(int64_t available) {
    std::vector<ClusterMember> members(2);
    for (int i = 0; i < 2; ++i) {
      members[i].device.name = absl::StrCat("cpu:", i);
      members[i].device.memory_bytes = available;
      members[i].device.weight_types = {WeightType::kF32};
    }
    return members;
  }
  int64_t LargestNeed() {
    const Plan plan = PlanMembers(inputs_, Members(1000 * kMiB)).value();
    return std::max(plan.workers.at(0).memory.total(), plan.workers.at(1).memory.total());
  }

  std::string dir_;
  std::unique_ptr<model::GgufFile> file_;
  model::ModelConfig config_;
  std::unique_ptr<transport::RunDir> run_dir_;
  PlanInputs inputs_;
};

TEST_F(PlanMembersTest, PlansOverTheRegisteredWorkers) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanMembers(inputs_, Members(1000 * kMiB)));
  EXPECT_EQ(plan.workers.size(), 2u);
  EXPECT_EQ(plan.route.size(), 2u);
}

TEST_F(PlanMembersTest, WhatABandwidthWasByChanceDoesNotChangeThePlan) {
  testing::WriteTinyLlama(dir_ + "/deep.gguf", {.layers = 12});
  ASSERT_OK_AND_ASSIGN(const model::ModelFile deep, model::OpenModelFile(dir_ + "/deep.gguf"));
  inputs_.config = &deep.config;
  inputs_.file = deep.file.get();
  std::vector<ClusterMember> members = Members(1000 * kMiB);
  for (ClusterMember& member : members) member.device.num_threads = 2;
  const auto route = [&](double first, double second) {
    members[0].device.bandwidth = first;
    members[1].device.bandwidth = second;
    return PlanMembers(inputs_, members).value().route;
  };
  const Route even = route(10e9, 10e9);
  EXPECT_EQ(route(17e9, 3e9), even);
  EXPECT_EQ(route(3e9, 17e9), even);
  // Threads are no chance.
  members[0].device.num_threads = 6;
  EXPECT_GT(route(10e9, 10e9).front().ops.size(), even.front().ops.size());
}

TEST_F(PlanMembersTest, AConfiguredBudgetReplacesWhatIsAvailable) {
  inputs_.memory["cpu:1"] = kMiB;
  EXPECT_THAT(PlanMembers(inputs_, Members(1000 * kMiB)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("cpu:1")));
  inputs_.memory["cpu:1"] = 1000 * kMiB;
  inputs_.memory["cpu:0"] = 1000 * kMiB;
  EXPECT_OK(PlanMembers(inputs_, Members(0)));
}

TEST_F(PlanMembersTest, WorkersOfOneNodeMustFitTogether) {
  const int64_t need = LargestNeed();  // each fits alone, both do not
  EXPECT_THAT(PlanMembers(inputs_, Members(need + kMiB)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("cpu:0"), HasSubstr("cpu:1"), HasSubstr("together"))));
  auto members = Members(need + kMiB);
  members[1].device.numa_node = 1;
  EXPECT_OK(PlanMembers(inputs_, members)) << "two nodes have two memories";
  EXPECT_OK(PlanMembers(inputs_, Members(2 * need + kMiB)));
}

TEST_F(PlanMembersTest, WorkersOnOneGpuMustFitTogether) {
  auto members = Members(0);
  for (ClusterMember& member : members) {
    member.device.kind = DeviceKind::kCuda;
    member.device.layout = PackedLayout::kP16Device;
    member.device.name = "cuda" + member.device.name.substr(3);
    member.device.device_id = "5f";
    member.device.memory_bytes = 800 * kMiB;  // of which each needs 512 for the driver
  }
  EXPECT_THAT(PlanMembers(inputs_, members),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("cuda:0"), HasSubstr("cuda:1"), HasSubstr("together"))));
  members[1].device.device_id = "60";
  EXPECT_OK(PlanMembers(inputs_, members)) << "two GPUs";
  for (ClusterMember& member : members) member.device.device_id = "";
  EXPECT_OK(PlanMembers(inputs_, members)) << "nobody knows";
}

TEST_F(PlanMembersTest, RulesAreCheckedBeforeAnyWorkerIsThere) {
  EXPECT_OK(CheckRules(inputs_, {"cpu:0", "cpu:1"}));
  ASSERT_OK_AND_ASSIGN(const RuleSet rules,
                       ParseRules("- match: {layers: 0-1}\n  place: cpu:0\n", "r.yaml"));
  inputs_.rules = &rules;
  EXPECT_THAT(CheckRules(inputs_, {"cpu:0"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lm_head")));
}

}  // namespace
}  // namespace dovetail::coordinator
