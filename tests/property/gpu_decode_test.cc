// Streams that decode on GPU workers: steps of the same shape, which are started as graphs, have
// the bytes of CPU workers while contexts grow over splits and streams come and go.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
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
using transport::SequenceStep;

constexpr int kStreams = 3;
constexpr int kBlocksOfStream = 20;

int32_t TokenAt(int stream, int position) { return (position * 37 + stream * 11 + 5) % 250; }

// Streams that begin with prompts of different lengths and then get a token each in every step,
// but for the last one, which is gone after half of the steps. What all rows but the prompts' have.
absl::StatusOr<Logits> Decode(const LocalPipelineOptions& options, std::vector<int> lengths,
                              int steps, int64_t* graph_launches) {
  std::vector<worker::Device*> devices;
  LocalPipelineOptions watched = options;
  if (options.make_device) {
    watched.make_device = [&](int worker) {
      auto device = options.make_device(worker);
      if (device != nullptr) devices.push_back(device.get());
      return device;
    };
  }
  auto pipeline = LocalPipeline::Start(watched);
  if (!pipeline.ok()) return pipeline.status();
  Logits rows;
  for (int step = 0; step <= steps; ++step) {
    transport::StepFrame frame = (*pipeline)->NewFrame();
    for (int stream = 0; stream < kStreams; ++stream) {
      if (stream + 1 == kStreams && step > steps / 2) continue;
      const int rows_now = step == 0 ? lengths[stream] : 1;
      const int position = step == 0 ? 0 : lengths[stream]++;
      std::vector<int32_t> tokens;
      for (int i = 0; i < position + rows_now; ++i) tokens.push_back(TokenAt(stream, i));
      LocalPipeline::AddRows(tokens, position, rows_now, stream * kBlocksOfStream, 1,
                             SequenceStep::kReturnLogits, {}, &frame);
    }
    auto output = (*pipeline)->RunStep(frame);
    if (!output.ok()) return output.status();
    rows.emplace_back(output->logits.begin(), output->logits.end());
  }
  if (graph_launches != nullptr) {
    for (const worker::Device* device : devices) *graph_launches += device->graph_launches();
  }
  return rows;
}

LocalPipelineOptions OptionsFor(const std::string& gguf) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = {.max_rows = 320,
                   .max_sequences = kStreams,
                   .max_logit_rows = kStreams,
                   .context_length = 600,
                   .num_kv_blocks = kStreams * kBlocksOfStream,
                   .kv_type = KvType::kF16};
  return options;
}

void ExpectCpuBytes(LocalPipelineOptions options, const std::vector<int>& lengths, int steps,
                    int64_t min_launches) {
  ASSERT_OK_AND_ASSIGN(const Logits cpu, Decode(options, lengths, steps, nullptr));
  options.make_device = [](int worker) {
    return worker == 0 ? testing::MakeGpu(testing::TestSeed()) : nullptr;
  };
  int64_t launches = 0;
  ASSERT_OK_AND_ASSIGN(const Logits gpu, Decode(options, lengths, steps, &launches));
  EXPECT_TRUE(SameBytes(cpu, gpu));
  EXPECT_GE(launches, min_launches) << "graphs";
}

TEST(GpuDecode, GraphsHaveTheBytesWhileContextsGrowOverSplits) {
  const std::string gguf = testing::TempFile("gpu_decode.gguf");
  testing::WriteTinyLlama(gguf, {.context = 1024, .type = WeightType::kQ8_0, .tokenizer = false});
  // The first stream's context gets its second split, and the step another shape, after 6 steps.
  ExpectCpuBytes(OptionsFor(gguf), {250, 30, 7}, 20, 20 - 3);
  std::remove(gguf.c_str());
}

TEST(GpuDecode, GraphsOfExpertsAndLatentAttention) {
  const std::string gguf = DataPath("golden/deepseek3/model-q4_k_m.gguf");
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  ExpectCpuBytes(OptionsFor(gguf), {40, 30, 7}, 8, 8 - 2);
}

// A graph for each of the GPU worker's segments.
TEST(GpuDecode, GraphsOfARouteThatLeavesForExperts) {
  const std::string gguf = DataPath("golden/glm4moe/model-bf16.gguf");
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  LocalPipelineOptions options = OptionsFor(gguf);
  options.make_route = [](const model::ModelConfig& config) {
    Route route;
    for (const Op& op : model::OpsOf(config)) {
      const char* worker = op.kind == OpKind::kExperts ? "cpu:1" : "cpu:0";
      if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
      route.back().ops.push_back(op);
    }
    return route;
  };
  ExpectCpuBytes(options, {40, 30, 7}, 8, 2 * (8 - 2));
}

// What is drawn, and what is told of it, where the GPU looks for the best token of some rows, and
// the host is sent the logits of others.
absl::StatusOr<std::vector<int64_t>> Draw(const LocalPipelineOptions& options) {
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  std::vector<int32_t> tokens;
  for (int i = 0; i < 9; ++i) tokens.push_back(TokenAt(0, i));
  std::vector<int64_t> drawn;
  for (int first = 0; first < 4; ++first) {  // each kind of sequence at each place of the step
    transport::StepFrame frame = (*pipeline)->NewFrame();
    for (int i = 0; i < 4; ++i) {
      const int kind = (first + i) % 4;
      const SamplingParams sampling = {.temperature = kind == 1 ? 0.9f : 0.0f,
                                       .seed = static_cast<uint64_t>(first)};
      const uint32_t flags =
          SequenceStep::kSample | (kind == 2 ? SequenceStep::kLogprobs : uint32_t{0});
      LocalPipeline::AddRows(tokens, 0, 9 - i, i, 1, flags, sampling, &frame);
      if (kind != 3) continue;
      frame.adjustments.push_back({.token = 17, .bias = 50.0f});
      frame.sequences.back().num_adjustments = 1;
      frame.header.num_adjustments = 1;
    }
    auto output = (*pipeline)->RunStep(frame);
    if (!output.ok()) return output.status();
    for (const auto& sequence : output->sequences) drawn.push_back(sequence.token);
    for (const TokenLogprob& logprob : output->logprobs) {
      drawn.push_back(logprob.token);
      drawn.push_back(std::bit_cast<int32_t>(logprob.logprob));
    }
  }
  return drawn;
}

TEST(GpuDecode, DrawsWhatACpuWorkerDraws) {
  const std::string gguf = testing::TempFile("gpu_draw.gguf");
  testing::WriteTinyLlama(gguf, {.type = WeightType::kQ8_0, .tokenizer = false});
  LocalPipelineOptions options = OptionsFor(gguf);
  options.shape.max_sequences = options.shape.max_logit_rows = 4;
  options.shape.context_length = 64;
  ASSERT_OK_AND_ASSIGN(const auto cpu, Draw(options));
  options.make_device = [](int) { return testing::MakeGpu(testing::TestSeed()); };
  ASSERT_OK_AND_ASSIGN(const auto gpu, Draw(options));
  EXPECT_EQ(cpu, gpu);
  EXPECT_EQ(std::count(cpu.begin(), cpu.end(), 17), 4) << "what is adjusted is drawn";
  std::remove(gguf.c_str());
}

}  // namespace
}  // namespace dovetail
