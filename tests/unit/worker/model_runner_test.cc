// The runner behind its executor, on a tiny model: values that are not finite, and frames that are
// wrong.

#include "worker/model_runner.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using transport::SequenceStep;
using transport::StepFrame;

const std::vector<int32_t> kTokens = {5, 6, 7, 8, 9};

class ModelRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.gguf = ::testing::TempDir() + "model_runner_test.gguf";
    options_.shape.max_rows = 16;
    testing::WriteTinyLlama(options_.gguf);
  }
  void TearDown() override { std::filesystem::remove(options_.gguf); }

  // Overwrites the first weight of a tensor of f32.
  void Spoil(const std::string& tensor, float value) {
    uint64_t offset = 0;
    {
      auto file = model::GgufFile::Open(options_.gguf);
      ASSERT_OK(file);
      offset = (*file)->FindTensor(tensor)->offset;
    }
    std::fstream out(options_.gguf, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(offset));
    out.write(reinterpret_cast<const char*>(&value), sizeof(value));
    ASSERT_TRUE(out.good());
  }

  absl::StatusOr<transport::StepOutput> RunOne() {
    auto pipeline = LocalPipeline::Start(options_);
    if (!pipeline.ok()) return pipeline.status();
    StepFrame frame = (*pipeline)->NewFrame();
    LocalPipeline::AddRows(kTokens, 0, 5, 0, 2, SequenceStep::kSample | SequenceStep::kReturnLogits,
                           {.temperature = 0}, &frame);
    return (*pipeline)->RunStep(frame);
  }

  LocalPipelineOptions options_;
};

TEST_F(ModelRunnerTest, AnswersWithTokenAndLogits) {
  options_.cuts = {2};
  ASSERT_OK_AND_ASSIGN(const auto output, RunOne());
  EXPECT_EQ(output.header.error_layer, 0u);
  ASSERT_EQ(output.sequences.size(), 1u);
  ASSERT_EQ(output.sequences[0].num_logit_rows, 2);
  const float* last = output.logits.data() + 320;
  EXPECT_EQ(output.sequences[0].token, std::max_element(last, last + 320) - last);
}

TEST_F(ModelRunnerTest, NamesTheOpWhereAValueStoppedBeingFinite) {
  Spoil("blk.1.ffn_down.weight", std::numeric_limits<float>::quiet_NaN());
  // Ops: embedding, attention 0, mlp 0, attention 1, mlp 1: the fifth. The frame still reaches the
  // end.
  for (const std::vector<int>& cuts : {std::vector<int>{}, {2}, {5}, {1, 4, 6}}) {
    options_.cuts = cuts;
    ASSERT_OK_AND_ASSIGN(const auto output, RunOne());
    EXPECT_EQ(output.header.error_layer, 5u);
    ASSERT_EQ(output.sequences.size(), 1u);
    EXPECT_EQ(output.sequences[0].token, -1);
    EXPECT_EQ(output.sequences[0].num_logit_rows, 0);
    EXPECT_TRUE(output.logits.empty());
  }
}

// A key of minus infinity may get a probability of 0, so it must be seen when it is stored: f16
// holds no such numbers.
TEST_F(ModelRunnerTest, SeesAKeyThatTheCacheCannotHold) {
  Spoil("blk.0.attn_k.weight", 1e30f);
  options_.shape.kv_type = KvType::kF16;
  ASSERT_OK_AND_ASSIGN(const auto output, RunOne());
  EXPECT_EQ(output.header.error_layer, 2u);
}

TEST_F(ModelRunnerTest, SeesInfinityInTheLogits) {
  Spoil("output.weight", std::numeric_limits<float>::infinity());
  ASSERT_OK_AND_ASSIGN(const auto output, RunOne());
  EXPECT_EQ(output.header.error_layer, 7u);
  EXPECT_EQ(output.sequences[0].token, -1);
}

TEST_F(ModelRunnerTest, AStepWithoutLogitsStillComesBack) {
  options_.cuts = {2, 6};
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  StepFrame frame = pipeline->NewFrame();
  LocalPipeline::AddRows(kTokens, 0, 5, 0, 0, 0, {}, &frame);
  ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
  ASSERT_EQ(output.sequences.size(), 1u);
  EXPECT_EQ(output.sequences[0].token, -1);
  EXPECT_EQ(output.header.error_layer, 0u);
}

TEST_F(ModelRunnerTest, ManySequencesDrawAsEachAlone) {
  options_.num_threads = 2;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  const SamplingParams params = {.temperature = 3.0f, .top_k = 200, .seed = 11};
  std::vector<int32_t> alone;
  for (int i = 0; i < 5; ++i) {
    StepFrame frame = pipeline->NewFrame();
    LocalPipeline::AddRows({i, i + 1, i + 2}, 0, 3, 2 * i, 1, SequenceStep::kSample, params,
                           &frame);
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
    alone.push_back(output.sequences[0].token);
  }
  StepFrame frame = pipeline->NewFrame();
  for (int i = 0; i < 5; ++i) {
    LocalPipeline::AddRows({i, i + 1, i + 2}, 0, 3, 2 * i, 1, SequenceStep::kSample, params,
                           &frame);
  }
  ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(output.sequences[i].token, alone[i]);
}

// A frame that passes the transport's checks but not the runner's ends the epoch with a reason.
class BadFrame : public ModelRunnerTest {
 protected:
  template <typename Change>
  std::string FailureOf(const Change& change) {
    auto pipeline = LocalPipeline::Start(options_);
    EXPECT_OK(pipeline);
    StepFrame frame = (*pipeline)->NewFrame();
    LocalPipeline::AddRows(kTokens, 0, 5, 0, 1, SequenceStep::kSample, {}, &frame);
    change(frame);
    EXPECT_THAT((*pipeline)->RunStep(frame),
                testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
    return (*pipeline)->failures().empty() ? "" : std::string((*pipeline)->failures()[0].message());
  }
};

TEST_F(BadFrame, TokenOutsideTheVocabulary) {
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.tokens[3] = 320; }), HasSubstr("token 320"));
}

TEST_F(BadFrame, SegmentOfAnotherWorker) {
  options_.cuts = {3};
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.header.segment = 1; }), HasSubstr("segment 1"));
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.header.segment = 9; }), HasSubstr("segment 9"));
}

TEST_F(BadFrame, SampleWithoutTheLogitsOfTheLastRow) {
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.logit_rows[0] = 3; }), HasSubstr("last row"));
}

}  // namespace
}  // namespace dovetail::worker
