// The runner behind its executor, on a tiny model: values that are not finite, and frames that are
// wrong.

#include "worker/model_runner.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
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
    options_.gguf = testing::TempFile("model_runner_test.gguf");
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

// Hidden states come back in place of logits, and change nothing for the others of the step.
TEST_F(ModelRunnerTest, AnswersWithHiddenStates) {
  testing::WriteTinyLlama(options_.gguf, {.tied = true});
  for (const std::vector<int>& cuts : {std::vector<int>{}, {2, 6}}) {
    options_.cuts = cuts;  // the second: lm_head is another worker's than the norm
    ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
    StepFrame frame = pipeline->NewFrame();
    for (int i = 0; i < 3; ++i) {
      const auto flag = i == 1 ? SequenceStep::kReturnHidden : SequenceStep::kReturnLogits;
      LocalPipeline::AddRows(kTokens, 0, 5, i, 3, flag, {}, &frame);
    }
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
    ASSERT_EQ(output.header.num_logit_rows, 6u);
    ASSERT_EQ(output.header.num_hidden_rows, 3u);
    EXPECT_EQ(output.sequences[1].num_hidden_rows, 3);
    const auto first = output.logits.begin();
    EXPECT_TRUE(std::equal(first, first + 3 * 320, first + 3 * 320));
    // The logits of the same rows are lm_head times them: of a tied model, the embedding.
    auto file = model::GgufFile::Open(options_.gguf);
    ASSERT_OK(file);
    const auto* weights = reinterpret_cast<const float*>(
        (*file)->Data(*(*file)->FindTensor("token_embd.weight")).data());
    for (int row = 0; row < 3; ++row) {
      for (int token = 0; token < 320; token += 37) {
        double sum = 0;
        for (int i = 0; i < 64; ++i)
          sum += double{weights[token * 64 + i]} * output.hidden[row * 64 + i];
        EXPECT_NEAR(sum, output.logits[row * 320 + token], 1e-4);
      }
    }
  }
}

// Two KV heads among three threads or more: they share the splits of a long context. The
// last step has one row of it, beside another sequence.
TEST_F(ModelRunnerTest, ThreadsThatShareAContextGiveTheSameLogits) {
  options_.shape.max_rows = 600;
  options_.shape.context_length = 4000;  // room for the parts of more than one row of these
  std::vector<int32_t> tokens;
  for (int i = 0; i < 1201; ++i) tokens.push_back((i * i + 3 * i) % 320);
  std::vector<float> expected;
  for (int num_threads : {1, 3, 5}) {
    options_.num_threads = num_threads;
    ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
    std::vector<float> logits;
    for (int begin : {0, 600, 1200}) {
      StepFrame frame = pipeline->NewFrame();
      const int rows = begin == 1200 ? 1 : 600;
      LocalPipeline::AddRows(tokens, begin, rows, 0, 1, SequenceStep::kReturnLogits, {}, &frame);
      if (begin == 1200) {
        LocalPipeline::AddRows(kTokens, 0, 1, 60, 1, SequenceStep::kReturnLogits, {}, &frame);
      }
      ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
      logits.assign(output.logits.begin(), output.logits.end());
    }
    ASSERT_EQ(logits.size(), 640u);
    if (num_threads == 1) expected = logits;
    EXPECT_EQ(logits, expected) << num_threads << " threads";
  }
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

// Attention, router and experts 1 and 2 of each layer on cpu:0, expert 0 on cpu:1.
Route DividedRoute(const model::ModelConfig& config) {
  Route route = {{"cpu:0", {}}};
  for (const Op& op : model::OpsOf(config)) {
    if (op.kind != OpKind::kExperts) {
      route.back().ops.push_back(op);
      continue;
    }
    route.push_back({"cpu:1", {{OpKind::kExperts, op.layer, 0, 1}}});
    route.push_back({"cpu:0", {{OpKind::kExperts, op.layer, 1, 3}}});
  }
  return route;
}

TEST_F(ModelRunnerTest, NamesThePartOfALayerWhereAValueStoppedBeingFinite) {
  testing::WriteTinyLlama(options_.gguf, {.experts = 3, .experts_used = 3});
  std::string whole = testing::ReadFileOrDie(options_.gguf);
  // Ops: embedding; attention, router, experts of layer 0; those of layer 1.
  const std::pair<const char*, uint32_t> cases[] = {{"blk.1.ffn_down_exps.weight", 7},
                                                    {"blk.1.ffn_gate_inp.weight", 6}};
  for (const auto& [tensor, op] : cases) {
    std::ofstream(options_.gguf, std::ios::binary) << whole;
    Spoil(tensor, std::numeric_limits<float>::quiet_NaN());
    for (const bool divided : {false, true}) {
      options_.make_route = nullptr;
      if (divided) options_.make_route = &DividedRoute;
      ASSERT_OK_AND_ASSIGN(const auto output, RunOne());
      EXPECT_EQ(output.header.error_layer, op) << tensor << divided;
      EXPECT_EQ(output.sequences.at(0).token, -1);
    }
  }
}

// Between the parts of a layer all state is in the frames: steps may overtake each other.
TEST_F(ModelRunnerTest, StepsInFlightBetweenPartsDoNotMix) {
  testing::WriteTinyLlama(options_.gguf, {.experts = 3});
  options_.make_route = &DividedRoute;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  const auto frame_of = [&](int i) {
    StepFrame frame = pipeline->NewFrame();
    LocalPipeline::AddRows({i, 3 * i, i + 7}, 0, 3, 2 * i, 3, SequenceStep::kReturnLogits, {},
                           &frame);
    return frame;
  };
  constexpr int kSteps = 8;
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < kSteps; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame_of(i)));
    alone.push_back(output.logits);
  }
  for (int i = 0; i < kSteps; ++i) ASSERT_OK(pipeline->Send(frame_of(i)));
  for (int i = 0; i < kSteps; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->Receive());
    EXPECT_EQ(output.logits, alone[i]) << i;
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
    const transport::StepHeader& h = frame.header;
    hidden_.resize(size_t{h.hidden_rows} * h.hidden_size);
    slot_experts_.resize(size_t{h.slot_rows} * 2);
    slot_weights_.resize(size_t{h.slot_rows} * 2);
    partials_.resize(size_t{h.partial_rows} * h.hidden_size);
    EXPECT_THAT((*pipeline)->RunStep(frame, {hidden_, slot_experts_, slot_weights_, partials_}),
                testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
    return (*pipeline)->failures().empty() ? "" : std::string((*pipeline)->failures()[0].message());
  }

  std::vector<float> hidden_, slot_weights_, partials_;
  std::vector<int32_t> slot_experts_;
};

TEST_F(BadFrame, TokenOutsideTheVocabulary) {
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.tokens[3] = 320; }), HasSubstr("token 320"));
}

TEST_F(BadFrame, SegmentOfAnotherWorker) {
  options_.cuts = {3};
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.header.segment = 1; }), HasSubstr("segment 1"));
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.header.segment = 9; }), HasSubstr("segment 9"));
}

TEST_F(BadFrame, RowsThatASegmentDoesNotStartFrom) {
  testing::WriteTinyLlama(options_.gguf, {.experts = 3});
  options_.make_route = &DividedRoute;
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.header.hidden_rows = 5; }),
              HasSubstr("segment 0: hidden_rows is 5, expected 0"));
  // Segment 2 starts with expert 1, after expert 0 has made a row for each that uses it.
  slot_experts_ = {0, 1, 2, 1, 0, 2, 1, 2, 2, 1};
  const auto failure = [&](uint32_t slot_rows, uint32_t partial_rows) {
    return FailureOf([=](StepFrame& f) {
      f.header.segment = 2;
      f.header.hidden_rows = 5;
      f.header.slot_rows = slot_rows;
      f.header.partial_rows = partial_rows;
    });
  };
  EXPECT_THAT(failure(5, 3), HasSubstr("segment 2: partial_rows is 3, expected 2"));
  EXPECT_THAT(failure(5, 0), HasSubstr("partial_rows is 0, expected 2"));
  EXPECT_THAT(failure(0, 0), HasSubstr("slot_rows is 0, expected 5"));
  slot_experts_ = {0, 1, 0, 1, 0, 2, 0, 2, 0, 1};
  EXPECT_THAT(failure(5, 10), HasSubstr("partial_rows is 10, expected 5"));
}

TEST_F(BadFrame, SampleWithoutTheLogitsOfTheLastRow) {
  EXPECT_THAT(FailureOf([](StepFrame& f) { f.logit_rows[0] = 3; }), HasSubstr("last row"));
}

}  // namespace
}  // namespace dovetail::worker
