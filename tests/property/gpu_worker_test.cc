// GPU workers, on the SIMT shim or on a real GPU (tests/gpu), compute the bytes of CPU workers:
// whole models of every golden family, and routes that go back and forth between both kinds.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "model/model_config.h"
#include "tests/testing/gpu_device.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail {
namespace {

using testing::DataPath;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SameBytes;

constexpr StepShape kShape = {.max_rows = 64,
                              .max_sequences = 4,
                              .max_logit_rows = 64,
                              .context_length = 128,
                              .num_kv_blocks = 16,
                              .kv_type = KvType::kF16};

std::unique_ptr<worker::Device> Gpu() { return testing::MakeGpu(testing::TestSeed()); }

// Two sequences in a step, then one: prompts in chunks, and a last row alone.
absl::StatusOr<Logits> Run(const LocalPipelineOptions& options,
                           const std::vector<int32_t>& tokens) {
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  const std::vector<int32_t> head(tokens.begin(), tokens.begin() + tokens.size() / 3);
  auto logits = (*pipeline)->Evaluate({tokens, head}, static_cast<int>(tokens.size()) - 1);
  if (!logits.ok()) return logits.status();
  Logits all = (*logits)[0];
  all.insert(all.end(), (*logits)[1].begin(), (*logits)[1].end());
  return all;
}

// Every part of every layer with experts on another worker than the one before, the others in turn.
Route Scattered(const model::ModelConfig& config) {
  Route route;
  for (const Op& op : model::OpsOf(config)) {
    std::vector<Op> parts = {op};
    if (op.kind == OpKind::kExperts) {
      const int32_t middle = op.expert_begin + (op.expert_end - op.expert_begin) / 3;
      parts = {{OpKind::kExperts, op.layer, middle, op.expert_end},
               {OpKind::kExperts, op.layer, op.expert_begin, middle}};
    }
    for (const Op& part : parts) {
      route.push_back({absl::StrCat("cpu:", route.size() % 2), {part}});
    }
  }
  return route;
}

void Append(const char* worker, const Op& op, Route* route) {
  if (route->empty() || route->back().worker != worker) route->push_back({worker, {}});
  route->back().ops.push_back(op);
}

// Routed experts on worker 1, the rest on worker 0.
Route ExpertsApart(const model::ModelConfig& config) {
  Route route;
  for (const Op& op : model::OpsOf(config)) {
    Append(op.kind == OpKind::kExperts ? "cpu:1" : "cpu:0", op, &route);
  }
  return route;
}

// Layers in halves on two GPU workers, cpu:0 and cpu:1; the embedding and two thirds of each
// layer's experts on cpu:2, a CPU.
Route ThreeWay(const model::ModelConfig& config) {
  Route route;
  for (const Op& op : model::OpsOf(config)) {
    const bool first_half = op.layer >= 0 && op.layer < config.num_hidden_layers / 2;
    const char* gpu = first_half ? "cpu:0" : "cpu:1";
    if (op.kind == OpKind::kExperts) {
      const int32_t middle = op.expert_begin + (op.expert_end - op.expert_begin) / 3;
      Append(gpu, {OpKind::kExperts, op.layer, op.expert_begin, middle}, &route);
      Append("cpu:2", {OpKind::kExperts, op.layer, middle, op.expert_end}, &route);
    } else {
      Append(op.kind == OpKind::kEmbedding ? "cpu:2" : gpu, op, &route);
    }
  }
  return route;
}

// Two GPU workers, and one of each kind, compute each op together.
void ExpectSharedRowsHaveThem(const std::string& gguf, const std::vector<int32_t>& tokens,
                              const Logits& expected) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = kShape;
  options.make_route = [route = testing::SharedRoute(gguf, {{"cpu:0", 1}, {"cpu:1", 2}})](
                           const model::ModelConfig&) { return route; };
  for (int last : {0, 1}) {
    options.make_device = [last](int worker) { return worker <= last ? Gpu() : nullptr; };
    ASSERT_OK_AND_ASSIGN(const Logits shared, Run(options, tokens));
    EXPECT_TRUE(SameBytes(expected, shared)) << last + 1 << " GPU workers of 2 that share rows";
  }
}

void ExpectCpuBytes(const std::string& gguf, const std::vector<int32_t>& tokens) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = kShape;
  ASSERT_OK_AND_ASSIGN(const Logits expected, Run(options, tokens));
  options.make_device = [](int) { return Gpu(); };
  ASSERT_OK_AND_ASSIGN(const Logits whole, Run(options, tokens));
  EXPECT_TRUE(SameBytes(expected, whole)) << "one GPU worker";
  options.make_device = [](int worker) { return worker == 0 ? Gpu() : nullptr; };
  for (const auto& [name, route] :
       {std::pair{"scattered", &Scattered}, std::pair{"experts apart", &ExpertsApart}}) {
    options.make_route = *route;
    ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(gguf));
    ASSERT_OK_AND_ASSIGN(const auto config, model::LoadModelConfig(*file));
    if (config.experts.count == 0 && route == &ExpertsApart) continue;
    ASSERT_OK_AND_ASSIGN(const Logits cut, Run(options, tokens));
    EXPECT_TRUE(SameBytes(expected, cut)) << name;
  }
  ExpectSharedRowsHaveThem(gguf, tokens, expected);
}

void ExpectCpuBytesFromThree(const std::string& gguf, const std::vector<int32_t>& tokens) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = kShape;
  ASSERT_OK_AND_ASSIGN(const Logits expected, Run(options, tokens));
  options.make_route = ThreeWay;
  options.make_device = [](int worker) { return worker < 2 ? Gpu() : nullptr; };
  ASSERT_OK_AND_ASSIGN(const Logits split, Run(options, tokens));
  EXPECT_TRUE(SameBytes(expected, split));
}

// `count` of the longest case of the golden model ("deepseek3/model-q4_k_m.gguf"), or none where
// the model is not there.
std::vector<int32_t> GoldenTokens(const std::string& model, size_t count) {
  const std::string family = model.substr(0, model.find('/'));
  const std::string golden = DataPath(absl::StrCat("golden/", family, "/golden.json"));
  std::vector<int32_t> tokens;
  if (golden.empty() || DataPath(absl::StrCat("golden/", model)).empty()) return tokens;
  const auto json = nlohmann::json::parse(testing::ReadFileOrDie(golden));
  for (const auto& c : json["cases"]) {
    if (c["tokens"].size() > tokens.size()) tokens = c["tokens"].get<std::vector<int32_t>>();
  }
  EXPECT_GT(tokens.size(), 30u);
  tokens.resize(std::min(tokens.size(), count));
  return tokens;
}

class GoldenModel : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenModel, HasTheBytesOfACpuWorker) {
  // Enough for every kind of product; those of floats are slow here.
  const bool floats = absl::StrContains(GetParam(), "bf16");
  const std::vector<int32_t> tokens = GoldenTokens(GetParam(), floats ? 20 : 40);
  if (tokens.empty()) GTEST_SKIP() << "the golden model is not here";
  ExpectCpuBytes(DataPath(absl::StrCat("golden/", GetParam())), tokens);
}

std::string NameOf(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = absl::ascii_isalnum(c) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Families, GoldenModel,
    ::testing::Values("llama/model-bf16.gguf", "llama-tied/model-bf16.gguf",
                      "qwen2/model-bf16.gguf", "qwen3/model-bf16.gguf", "gemma3/model-bf16.gguf",
                      "mixtral/model-bf16.gguf", "qwen2moe/model-bf16.gguf",
                      "qwen3moe/model-bf16.gguf", "glm4moe/model-bf16.gguf",
                      "gpt-oss/model-bf16.gguf", "minimax-m2/model-bf16.gguf",
                      "deepseek2/model-bf16.gguf", "deepseek2-lite/model-bf16.gguf",
                      "deepseek2-lite/model-bf16-kv_b.gguf", "glm4moe/model-bf16-nextn.gguf",
                      "deepseek3/model-bf16.gguf", "kimi-k2/model-bf16.gguf",
                      "llama/model-q4_k_m.gguf", "deepseek3/model-q4_k_m.gguf",
                      "deepseek3/model-mxfp4_moe.gguf", "deepseek3/model-iq2_xxs.gguf"),
    NameOf);

class ThreeWaySplit : public ::testing::TestWithParam<std::string> {};

TEST_P(ThreeWaySplit, HasTheBytesOfACpuWorker) {
  const std::vector<int32_t> tokens = GoldenTokens(GetParam(), 20);
  if (tokens.empty()) GTEST_SKIP() << "the golden model is not here";
  ExpectCpuBytesFromThree(DataPath(absl::StrCat("golden/", GetParam())), tokens);
}

INSTANTIATE_TEST_SUITE_P(Families, ThreeWaySplit,
                         ::testing::Values("qwen3moe/model-q4_k_m.gguf", "glm4moe/model-bf16.gguf",
                                           "deepseek3/model-q4_k_m.gguf"),
                         NameOf);

// The first `rows` tokens of each of these sequences from `position` on, as a lane's step.
transport::StepFrame StepOfLane(LocalPipeline& pipeline, uint32_t lane,
                                const std::vector<std::vector<int32_t>>& sequences, int position,
                                int rows) {
  transport::StepFrame frame = pipeline.NewFrame();
  frame.header.lane = lane;
  const int first_block = static_cast<int>(lane * sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    LocalPipeline::AddRows(sequences[i], position, rows, first_block + static_cast<int>(i), rows,
                           transport::SequenceStep::kReturnLogits, {}, &frame);
  }
  return frame;
}

// Eight sequences, four in each of two lanes, in chunks and token by token. `together`: the second
// lane's step is sent before the first one's is back.
absl::StatusOr<Logits> RunInLanes(const LocalPipelineOptions& options, bool together) {
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  std::vector<std::vector<int32_t>> lanes[2];
  for (int i = 0; i < 8; ++i) {
    std::vector<int32_t>& tokens = lanes[i % 2].emplace_back(12);
    for (int t = 0; t < 12; ++t) tokens[t] = (t * 37 + i * 11 + 5) % 250;
  }
  Logits rows;
  const auto receive = [&]() -> absl::Status {
    auto output = (*pipeline)->Receive();
    if (!output.ok()) return output.status();
    rows.emplace_back(output->logits.begin(), output->logits.end());
    return absl::OkStatus();
  };
  for (const auto& [position, count] : {std::pair{0, 5}, {5, 5}, {10, 1}, {11, 1}}) {
    for (uint32_t lane : {0u, 1u}) {
      DT_RETURN_IF_ERROR(
          (*pipeline)->Send(StepOfLane(**pipeline, lane, lanes[lane], position, count)));
      if (!together) DT_RETURN_IF_ERROR(receive());
    }
    for (int lane = 0; together && lane < 2; ++lane) DT_RETURN_IF_ERROR(receive());
  }
  return rows;
}

TEST(GpuWorker, TwoStepsInFlightHaveTheBytesOfACpuWorker) {
  LocalPipelineOptions options;
  options.gguf = DataPath("golden/deepseek3/model-q4_k_m.gguf");
  if (options.gguf.empty()) GTEST_SKIP() << "no golden models here";
  options.shape = kShape;
  ASSERT_OK_AND_ASSIGN(const Logits expected, RunInLanes(options, false));
  options.make_route = ExpertsApart;
  options.make_device = [](int worker) { return worker == 0 ? Gpu() : nullptr; };
  ASSERT_OK_AND_ASSIGN(const Logits hybrid, RunInLanes(options, true));
  EXPECT_TRUE(SameBytes(expected, hybrid)) << "experts on the CPU";
  options.make_route = ThreeWay;
  options.make_device = [](int worker) { return worker < 2 ? Gpu() : nullptr; };
  ASSERT_OK_AND_ASSIGN(const Logits split, RunInLanes(options, true));
  EXPECT_TRUE(SameBytes(expected, split)) << "two GPU workers and a CPU worker";
}

// Contexts of several splits, which blocks of a launch share where rows are few, and more rows at
// once than latent attention takes in a tile.
void ExpectCpuBytesOfALongContext(const std::string& gguf, KvType kv_type) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = {.max_rows = 150,
                   .max_sequences = 2,
                   .max_logit_rows = 150,
                   .context_length = 640,
                   .num_kv_blocks = 40,
                   .kv_type = kv_type};
  std::vector<int32_t> tokens(552);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * 37 + 11) % 250);
  // Three chunks of 150 rows, one of 101, and a row alone.
  const auto run = [&]() -> absl::StatusOr<Logits> {
    auto pipeline = LocalPipeline::Start(options);
    if (!pipeline.ok()) return pipeline.status();
    Logits rows;
    for (const auto& [position, count] :
         {std::pair{0, 150}, {150, 150}, {300, 150}, {450, 101}, {551, 1}}) {
      transport::StepFrame frame = (*pipeline)->NewFrame();
      LocalPipeline::AddRows(tokens, position, count, 0, 1, transport::SequenceStep::kReturnLogits,
                             {}, &frame);
      auto output = (*pipeline)->RunStep(frame);
      if (!output.ok()) return output.status();
      rows.emplace_back(output->logits.begin(), output->logits.end());
    }
    return rows;
  };
  ASSERT_OK_AND_ASSIGN(const Logits cpu, run());
  options.make_device = [](int) { return Gpu(); };
  ASSERT_OK_AND_ASSIGN(const Logits gpu, run());
  EXPECT_TRUE(SameBytes(cpu, gpu)) << gguf << ", " << KvTypeName(kv_type);
}

TEST(GpuWorker, LongContextsHaveTheBytesOfACpuWorker) {
  const std::string gguf = testing::TempFile("gpu_worker_long.gguf");
  testing::WriteTinyLlama(gguf, {.context = 1024, .type = WeightType::kQ8_0, .tokenizer = false});
  for (KvType kv_type : {KvType::kF16, KvType::kQ8_0}) ExpectCpuBytesOfALongContext(gguf, kv_type);
  std::remove(gguf.c_str());
}

TEST(GpuWorker, LongLatentContextsHaveTheBytesOfACpuWorker) {
  const std::string gguf = DataPath("golden/deepseek3/model-q4_k_m.gguf");
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  ExpectCpuBytesOfALongContext(gguf, KvType::kF16);
}

// What a GPU worker's cache holds is moved as the frame says, before anything is computed with it.
TEST(GpuWorker, CopiesBlocksInTheirOrder) {
  const std::string gguf = testing::TempFile("gpu_worker_copies.gguf");
  testing::WriteTinyLlama(gguf, {.type = WeightType::kQ8_0});
  std::vector<int32_t> tokens(40);
  std::iota(tokens.begin(), tokens.end(), 3);
  const auto last_row = [&](bool gpu) -> absl::StatusOr<Logits> {
    LocalPipelineOptions options;
    options.gguf = gguf;
    options.shape = kShape;
    options.cuts = {3};
    if (gpu) options.make_device = [](int) { return Gpu(); };
    auto pipeline = LocalPipeline::Start(options);
    if (!pipeline.ok()) return pipeline.status();
    Logits rows;
    for (int first_block : {0, 6}) {
      transport::StepFrame frame = (*pipeline)->NewFrame();
      const bool copied = first_block != 0;
      // Blocks 0 and 1 go to 6 and 7 by way of 5, which the second copy must find overwritten.
      if (copied)
        frame.copies = {
            {.from = 0, .to = 5}, {.from = 5, .to = 6}, {.from = 1, .to = 5}, {.from = 5, .to = 7}};
      frame.header.num_copies = static_cast<uint32_t>(frame.copies.size());
      const int position = copied ? 39 : 0;
      LocalPipeline::AddRows(tokens, position, 40 - position, first_block, 1,
                             transport::SequenceStep::kReturnLogits, {}, &frame);
      auto output = (*pipeline)->RunStep(frame);
      if (!output.ok()) return output.status();
      rows.emplace_back(output->logits.begin(), output->logits.end());
    }
    return rows;
  };
  ASSERT_OK_AND_ASSIGN(const Logits cpu, last_row(false));
  ASSERT_OK_AND_ASSIGN(const Logits gpu, last_row(true));
  EXPECT_EQ(cpu[0], cpu[1]);
  EXPECT_TRUE(SameBytes(cpu, gpu));
  std::remove(gguf.c_str());
}

// A weight that makes infinities: the op that they came from is named as a CPU worker names it.
TEST(GpuWorker, NamesTheOpThatIsNotFinite) {
  const std::string gguf = testing::TempFile("gpu_worker_infinite.gguf");
  for (const char* tensor : {"blk.1.attn_output.weight", "blk.0.ffn_down.weight", "output.weight",
                             "token_embd.weight"}) {
    testing::GgufWriter writer = testing::MakeTinyLlama({.tokenizer = false});
    for (testing::GgufWriter::Tensor& t : writer.tensors()) {
      if (t.name != tensor) continue;
      const float infinity = std::numeric_limits<float>::infinity();
      for (size_t i = 0; i + 4 <= t.data.size(); i += 4) std::memcpy(&t.data[i], &infinity, 4);
    }
    writer.Write(gguf);
    std::vector<uint32_t> error_layers;
    for (bool gpu : {false, true}) {
      LocalPipelineOptions options;
      options.gguf = gguf;
      options.shape = kShape;
      options.cuts = {3};
      if (gpu) options.make_device = [](int) { return Gpu(); };
      ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options));
      for (int step = 0; step < 2; ++step) {  // a flag does not stay up
        transport::StepFrame frame = pipeline->NewFrame();
        LocalPipeline::AddRows({1, 2, 3}, 0, 3, 0, 1, transport::SequenceStep::kReturnLogits, {},
                               &frame);
        ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(frame));
        error_layers.push_back(output.header.error_layer);
      }
    }
    EXPECT_THAT(error_layers, ::testing::Each(::testing::AllOf(error_layers[0], ::testing::Gt(0u))))
        << tensor;
    std::remove(gguf.c_str());
  }
}

}  // namespace
}  // namespace dovetail
