#include "coordinator/placement/ktransformers/op_names.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/yaml_reader.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator::ktransformers {
namespace {

TEST(OpNames, SayWhereOpsRunAndWhatTheyDoToWeights) {
  EXPECT_EQ(FindOp("KLinearMarlin")->least_capability, 80);
  EXPECT_EQ(FindOp("KLinearMarlin")->requantises_to, 4);
  EXPECT_TRUE(FindOp("KExpertsCPU")->is_experts);
  EXPECT_EQ(FindOp("KExpertsCPU")->runs, OpRuns::kCpu);
  EXPECT_EQ(FindOp("MLPCUDAExperts"), nullptr) << "named by its documentation, not there";
}

TEST(OpNames, ClassesAreWhatTheyPlace) {
  EXPECT_EQ(ClassifyOp("default"), OpClass::kDefault);
  EXPECT_EQ(ClassifyOp("ktransformers.operators.linear.KTransformersLinear"), OpClass::kLinear);
  EXPECT_EQ(ClassifyOp("KTransformersExperts"), OpClass::kExperts);
  EXPECT_EQ(ClassifyOp("ktransformers.operators.experts.KGlm4Experts"), OpClass::kExperts);
  EXPECT_EQ(ClassifyOp("ktransformers.operators.models.KDeepseekV2Model"), OpClass::kModel);
  EXPECT_EQ(ClassifyOp("ktransformers.operators.gate.KMoEGate"), OpClass::kImplementation);
  EXPECT_EQ(ClassifyOp("torch.nn.Linear"), OpClass::kUnknown);
}

// Every op and class of the shipped files is known.
TEST(OpNames, KnowAllThatTheShippedFilesUse) {
  DT_REQUIRE_DATA(one, "placement/ktransformers/ktransformers/DeepSeek-V3-Chat.yaml");
  const std::filesystem::path root = std::filesystem::path(one).parent_path().parent_path();
  int num_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    const auto file = ParseRuleFile(testing::ReadFileOrDie(entry.path()), entry.path());
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->diagnostics.empty()) << FormatDiagnostic(file->diagnostics[0]);
    for (const Rule& rule : file->rules) {
      EXPECT_NE(ClassifyOp(rule.op), OpClass::kUnknown) << rule.op;
      for (const char* key : {"generate_op", "prefill_op"}) {
        const std::string op = rule.Device(key);
        EXPECT_TRUE(op.empty() || op == "None" || FindOp(op) != nullptr) << op;
      }
    }
    ++num_files;
  }
  EXPECT_EQ(num_files, 77);
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
