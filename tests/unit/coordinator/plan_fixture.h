// PlanFixture: a small model and described devices, for tests of placements and plans.
#ifndef DOVETAIL_TESTS_UNIT_COORDINATOR_PLAN_FIXTURE_H_
#define DOVETAIL_TESTS_UNIT_COORDINATOR_PLAN_FIXTURE_H_

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/plan_table.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {

class PlanFixture : public ::testing::Test {
 protected:
  void SetUp() override { Open({}); }
  void Open(testing::TinyLlamaOptions options, int layers = 8) {
    options.layers = layers;
    const std::string path =
        absl::StrCat(::testing::TempDir(), "dovetail_plan_test_", ::getpid(), ".gguf");
    testing::WriteTinyLlama(path, options);
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(config_, model::LoadModelConfig(*file_));
    std::filesystem::remove(path);
    shape_.max_rows = 64;
    shape_.max_sequences = 8;
    shape_.max_logit_rows = 8;
    shape_.context_length = 256;
    shape_.num_kv_blocks = 16;
  }
  static std::vector<DeviceInfo> Devices(int count, int64_t memory = int64_t{4} << 30) {
    std::vector<DeviceInfo> devices;
    for (int i = 0; i < count; ++i) {
      DeviceInfo device;
      device.name = absl::StrCat("cpu:", i);
      device.memory_bytes = memory;
      const auto types = SupportedWeightTypes();
      device.weight_types.assign(types.begin(), types.end());
      devices.push_back(device);
    }
    return devices;
  }
  absl::StatusOr<Plan> Make(const std::vector<DeviceInfo>& devices) {
    return Make(nullptr, devices);
  }
  absl::StatusOr<Plan> Make(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    absl::StatusOr<RuleSet> set = ParseRules(rules, "r.yaml");
    if (!set.ok()) return set.status();
    return Make(&*set, devices);
  }
  absl::StatusOr<Plan> Make(const RuleSet* rules, const std::vector<DeviceInfo>& devices) {
    Plan plan =
        MakePlan(config_, *file_, Place(config_, *file_, rules, devices, shape_), devices, shape_);
    DT_RETURN_IF_ERROR(ErrorsToStatus(plan.diagnostics));
    DT_RETURN_IF_ERROR(CheckMemory(config_, *file_, plan));
    return plan;
  }
  std::vector<std::string> Places(const Plan& plan) {
    std::vector<std::string> places;
    for (const Segment& segment : plan.route) {
      places.push_back(absl::StrCat(segment.worker, ": ", DescribeOps(config_, segment.ops)));
    }
    return places;
  }

  std::unique_ptr<model::GgufFile> file_;
  model::ModelConfig config_;
  StepShape shape_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_TESTS_UNIT_COORDINATOR_PLAN_FIXTURE_H_
