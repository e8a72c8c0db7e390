// What a step costs a GPU worker's host where the step comes and goes between processors and GPUs:
// the start of a graph for each visit, and no other call; the bytes are those of CPU workers.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/device/simt_device.h"

namespace dovetail {
namespace {

using testing::DataPath;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SameBytes;
using transport::SequenceStep;
using worker::DeviceCalls;
using worker::SimtDevice;

constexpr int kStreams = 2;
constexpr int kBlocksOfStream = 2;

// Ops of `kind` on `other`, and of a layer's experts the first ones where `divided`; all others on
// simt:0.
std::function<Route(const model::ModelConfig&)> RouteWithout(OpKind kind, bool divided = false,
                                                             const char* other = "cpu:1") {
  return [=](const model::ModelConfig& config) {
    Route route;
    const auto append = [&](const char* worker, const Op& op) {
      if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
      route.back().ops.push_back(op);
    };
    for (const Op& op : model::OpsOf(config)) {
      if (op.kind != kind) {
        append("simt:0", op);
      } else if (!divided) {
        append(other, op);
      } else {
        const int32_t middle = op.expert_end / 2;
        append(other, {op.kind, op.layer, 0, middle});
        append("simt:0", {op.kind, op.layer, middle, op.expert_end});
      }
    }
    return route;
  };
}

LocalPipelineOptions OptionsFor(const std::string& gguf) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = {.max_rows = 24,
                   .max_sequences = kStreams,
                   .max_logit_rows = kStreams,
                   .context_length = 64,
                   .num_kv_blocks = kStreams * kBlocksOfStream,
                   .kv_type = KvType::kF16};
  return options;
}

// A pipeline whose first workers are GPUs, and streams that decode in it.
class Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<Decoder>> Start(LocalPipelineOptions options,
                                                        int num_gpus) {
    auto decoder = std::make_unique<Decoder>();
    SimtDevice** const device = &decoder->device_;
    options.make_device = [=](int worker) -> std::unique_ptr<worker::Device> {
      if (worker >= num_gpus) return nullptr;
      auto made = std::make_unique<SimtDevice>(testing::TestSeed());
      if (worker == 0) *device = made.get();
      return made;
    };
    auto pipeline = LocalPipeline::Start(options);
    if (!pipeline.ok()) return pipeline.status();
    decoder->pipeline_ = *std::move(pipeline);
    return decoder;
  }

  // A token for each stream. With kSample: the best one.
  absl::StatusOr<transport::StepOutput> Step(uint32_t flags) {
    transport::StepFrame frame = pipeline_->NewFrame();
    for (int stream = 0; stream < kStreams; ++stream) {
      std::vector<int32_t> tokens;
      for (int i = 0; i <= position_; ++i) tokens.push_back((i * 37 + stream * 11 + 5) % 120);
      if (next_token_ >= 0) tokens.back() = next_token_;
      LocalPipeline::AddRows(tokens, position_, 1, stream * kBlocksOfStream, 1, flags,
                             {.temperature = 0}, &frame);
    }
    ++position_;
    next_token_ = -1;
    return pipeline_->RunStep(frame);
  }
  void UseToken(int32_t token) { next_token_ = token; }

  // What one more step calls of the first GPU.
  absl::StatusOr<DeviceCalls> CallsOfStep(uint32_t flags) {
    const DeviceCalls before = device_->calls();
    auto output = Step(flags);
    if (!output.ok()) return output.status();
    const DeviceCalls after = device_->calls();
    return DeviceCalls{after.copies - before.copies, after.kernels - before.kernels,
                       after.graphs - before.graphs, after.waits - before.waits};
  }
  int64_t visits() const {
    return std::count_if(pipeline_->route().begin(), pipeline_->route().end(),
                         [](const Segment& segment) { return segment.worker == "simt:0"; });
  }

 private:
  std::unique_ptr<LocalPipeline> pipeline_;
  SimtDevice* device_ = nullptr;
  int position_ = 0;
  int32_t next_token_ = -1;
};

void ExpectOneCallAVisit(const LocalPipelineOptions& options) {
  ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options, /*num_gpus=*/1));
  ASSERT_GT(decoder->visits(), 2) << "nothing comes back";
  for (int i = 0; i < 2; ++i) ASSERT_OK(decoder->Step(SequenceStep::kSample));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const DeviceCalls calls, decoder->CallsOfStep(SequenceStep::kSample));
    EXPECT_EQ(calls.graphs, decoder->visits());
    EXPECT_EQ(calls.copies, 0);
    EXPECT_EQ(calls.kernels, 0);
    EXPECT_EQ(calls.waits, 0);
  }
}

void ExpectCpuBytes(const LocalPipelineOptions& options, int num_gpus = 1) {
  std::vector<Logits> rows;
  for (int gpus : {0, num_gpus}) {
    ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options, gpus));
    rows.emplace_back();
    for (int i = 0; i < 6; ++i) {
      ASSERT_OK_AND_ASSIGN(const auto output, decoder->Step(SequenceStep::kReturnLogits));
      rows.back().emplace_back(output.logits.begin(), output.logits.end());
    }
  }
  EXPECT_TRUE(SameBytes(rows[0], rows[1]));
}

struct Hybrid {
  const char* name;
  const char* model;
  bool divided;
};

class GpuHop : public ::testing::TestWithParam<Hybrid> {
 protected:
  void SetUp() override {
    gguf_ = DataPath(absl::StrCat("golden/", GetParam().model));
    if (gguf_.empty()) GTEST_SKIP() << "no golden models here";
    options_ = OptionsFor(gguf_);
    options_.make_route = RouteWithout(OpKind::kExperts, GetParam().divided);
  }
  std::string gguf_;
  LocalPipelineOptions options_;
};

TEST_P(GpuHop, AVisitIsOneCall) { ExpectOneCallAVisit(options_); }
TEST_P(GpuHop, HasTheBytesOfCpuWorkers) { ExpectCpuBytes(options_); }

// With a shared expert, without one; and, divided, segments that begin inside a layer with as many
// rows as tokens happened to choose experts of the worker before.
INSTANTIATE_TEST_SUITE_P(
    Experts, GpuHop,
    ::testing::Values(Hybrid{"Shared", "deepseek3/model-q4_k_m.gguf", false},
                      Hybrid{"SharedAndDivided", "deepseek3/model-q4_k_m.gguf", true},
                      Hybrid{"Routed", "qwen3moe/model-bf16.gguf", false},
                      Hybrid{"RoutedAndDivided", "qwen3moe/model-bf16.gguf", true}),
    [](const auto& info) { return info.param.name; });

// A model whose token `bad_token` (-1: none) has an embedding that is no number.
void WriteModel(const std::string& gguf, bool tied, int32_t bad_token) {
  const testing::TinyLlamaOptions tiny = {.tied = tied, .tokenizer = false};
  testing::GgufWriter writer = testing::MakeTinyLlama(tiny);
  for (testing::GgufWriter::Tensor& tensor : writer.tensors()) {
    if (tensor.name != "token_embd.weight" || bad_token < 0) continue;
    const size_t row_bytes = tensor.data.size() / tiny.vocab;
    tensor.data.replace(static_cast<size_t>(bad_token) * row_bytes, row_bytes, row_bytes, '\xff');
  }
  writer.Write(gguf);
}

class GpuHopOfLayers : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    gguf_ = testing::TempFile(absl::StrCat("gpu_hop_", GetParam(), ".gguf"));
    WriteModel(gguf_, /*tied=*/GetParam(), -1);
    options_ = OptionsFor(gguf_);
    options_.make_route = RouteWithout(OpKind::kMlp);
  }
  void TearDown() override { std::remove(gguf_.c_str()); }
  std::string gguf_;
  LocalPipelineOptions options_;
};

// Tokens are looked up by the host, or, with the head's matrix, by the GPU.
TEST_P(GpuHopOfLayers, AVisitIsOneCall) { ExpectOneCallAVisit(options_); }
TEST_P(GpuHopOfLayers, HasTheBytesOfCpuWorkers) { ExpectCpuBytes(options_); }

// What somebody looks at comes by a copy, behind which the signal is.
TEST_P(GpuHopOfLayers, LogitsAreACopyAndASignalMore) {
  ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options_, /*num_gpus=*/1));
  for (int i = 0; i < 2; ++i) ASSERT_OK(decoder->Step(SequenceStep::kReturnLogits));
  ASSERT_OK_AND_ASSIGN(const DeviceCalls calls, decoder->CallsOfStep(SequenceStep::kReturnLogits));
  EXPECT_EQ(calls.graphs, decoder->visits());
  EXPECT_EQ(calls.copies, 1);
  EXPECT_EQ(calls.kernels, 1);
  EXPECT_EQ(calls.waits, 0);
}

// The same shape with and without logits: with a graph of its own that ends with the signal.
TEST_P(GpuHopOfLayers, LogitsThatAreWantedNowAndThen) {
  std::vector<Logits> rows(2);
  std::vector<std::vector<int32_t>> tokens(2);
  for (bool on_gpu : {false, true}) {
    ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options_, on_gpu ? 1 : 0));
    for (int i = 0; i < 12; ++i) {
      const bool wanted = i < 3 || i % 3 == 0;
      const uint32_t flags = wanted ? SequenceStep::kReturnLogits : SequenceStep::kSample;
      ASSERT_OK_AND_ASSIGN(const auto output, decoder->Step(flags));
      if (wanted) rows[on_gpu ? 1 : 0].emplace_back(output.logits.begin(), output.logits.end());
      for (const auto& sequence : output.sequences) {
        tokens[on_gpu ? 1 : 0].push_back(sequence.token);
      }
    }
  }
  EXPECT_TRUE(SameBytes(rows[0], rows[1]));
  EXPECT_EQ(tokens[0], tokens[1]);
}

// Between GPUs rows are copied to a place that changes, and from one: outside of the graph.
TEST_P(GpuHopOfLayers, LinksAreACopyAtEachEnd) {
  options_.make_route = RouteWithout(OpKind::kMlp, false, "simt:1");
  options_.shape.gpu_links = GpuLinks::kAuto;
  options_.shape.link_slots = 3;
  ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options_, /*num_gpus=*/2));
  for (int i = 0; i < 2; ++i) ASSERT_OK(decoder->Step(SequenceStep::kSample));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const DeviceCalls calls, decoder->CallsOfStep(SequenceStep::kSample));
    const int64_t hops = decoder->visits() - 1;  // away, and as many back
    EXPECT_EQ(calls.graphs, decoder->visits());
    EXPECT_EQ(calls.copies, 2 * hops);
    EXPECT_EQ(calls.kernels, hops) << "signals behind the copies";
    EXPECT_EQ(calls.waits, 0);
  }
  ExpectCpuBytes(options_, /*num_gpus=*/2);
}

INSTANTIATE_TEST_SUITE_P(Embeddings, GpuHopOfLayers, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Tied" : "OfTheirOwn"; });

// A token whose embedding is no number, in each of the first steps of a shape: the op is named, and
// the steps after it are as if it had not been.
TEST(GpuHopOfBadTokens, AStepThatFailsLeavesNoGraphBehind) {
  constexpr int32_t kBad = 300;
  const std::string gguf = testing::TempFile("gpu_hop_bad.gguf");
  WriteModel(gguf, /*tied=*/false, kBad);
  LocalPipelineOptions options = OptionsFor(gguf);
  options.make_route = RouteWithout(OpKind::kMlp);
  for (int bad_step = 0; bad_step < 3; ++bad_step) {
    std::vector<Logits> rows(2);
    for (bool on_gpu : {false, true}) {
      ASSERT_OK_AND_ASSIGN(auto decoder, Decoder::Start(options, on_gpu ? 1 : 0));
      for (int i = 0; i < 5; ++i) {
        if (i == bad_step) decoder->UseToken(kBad);
        ASSERT_OK_AND_ASSIGN(const auto output, decoder->Step(SequenceStep::kReturnLogits));
        ASSERT_EQ(output.header.error_layer, i == bad_step ? 1u : 0u);
        rows[on_gpu ? 1 : 0].emplace_back(output.logits.begin(), output.logits.end());
      }
    }
    EXPECT_TRUE(SameBytes(rows[0], rows[1])) << "after step " << bad_step;
  }
  std::remove(gguf.c_str());
}

}  // namespace
}  // namespace dovetail
