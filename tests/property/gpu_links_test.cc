// GPU workers whose rows go by links: the bytes of one CPU worker, by every kind of link, on routes
// that come back; and what becomes of links that cannot be.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/gpu_device.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/device/simt_device.h"

namespace dovetail {
namespace {

using ::testing::HasSubstr;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SameBytes;

// NCCL itself refuses two workers on one GPU.
#ifdef NCCL_STAND_IN
constexpr char kStandIn[] = NCCL_STAND_IN;
#else
constexpr char kStandIn[] = "";
#endif
constexpr bool kHasStandIn = sizeof(kStandIn) > 1;
constexpr int kRows = 12;

// Ops in turn on simt:0, simt:1, and after three of them on cpu:2.
Route InTurn(const model::ModelConfig& config) {
  constexpr const char* kWorkers[] = {"simt:0", "simt:1", "simt:0", "cpu:2", "simt:1"};
  Route route;
  size_t next = 0;
  for (const Op& op : model::OpsOf(config)) {
    const bool inside = op.kind == OpKind::kSharedExperts || op.kind == OpKind::kExperts;
    if (!inside) route.push_back({kWorkers[next++ % std::size(kWorkers)], {}});
    route.back().ops.push_back(op);
  }
  return route;
}

std::unique_ptr<worker::Device> OnGpus(int worker) {
  return worker < 2 ? testing::MakeGpu(testing::TestSeed()) : nullptr;
}

LocalPipelineOptions OptionsFor(const std::string& gguf, GpuLinks kind) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.make_route = InTurn;
  options.make_device = OnGpus;
  options.shape = {.max_rows = kRows,
                   .max_sequences = 2,
                   .max_logit_rows = kRows,
                   .context_length = 64,
                   .num_kv_blocks = 4,
                   .kv_type = KvType::kF16};
  options.shape.gpu_links = kind;
  options.shape.link_slots = 2;
  return options;
}

std::vector<std::vector<int32_t>> Lists() {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 20; ++i) tokens.push_back((i * 37 + 11) % 120);
  return {tokens, {tokens.begin() + 3, tokens.begin() + 13}};
}

// And again in another epoch. `sent`: how much of the rings the two GPU workers have written to.
absl::StatusOr<Logits> Evaluate(LocalPipeline& pipeline, uint64_t* sent) {
  Logits all;
  for (int epoch = 0; epoch < 2; ++epoch) {
    if (epoch == 1) {
      if (absl::Status s = pipeline.Reconnect(); !s.ok()) return s;
    }
    auto logits = pipeline.Evaluate(Lists(), kRows / 2);
    if (!logits.ok()) return logits.status();
    for (const Logits& rows : *logits) all.insert(all.end(), rows.begin(), rows.end());
    *sent = pipeline.exchange().BytesTouchedBySending("simt:0");
  }
  return all;
}

void ExpectCpuBytes(const std::string& gguf) {
  LocalPipelineOptions options = OptionsFor(gguf, GpuLinks::kHost);
  options.make_route = nullptr;
  options.make_device = nullptr;
  uint64_t sent = 0, by_host = 0;
  ASSERT_OK_AND_ASSIGN(auto cpu, LocalPipeline::Start(options));
  ASSERT_OK_AND_ASSIGN(const Logits expected, Evaluate(*cpu, &sent));
  for (GpuLinks kind : {GpuLinks::kHost, GpuLinks::kAuto, GpuLinks::kIpc, GpuLinks::kNccl}) {
    if (kind == GpuLinks::kNccl && !kHasStandIn) continue;
    ASSERT_OK_AND_ASSIGN(auto gpus, LocalPipeline::Start(OptionsFor(gguf, kind)));
    ASSERT_OK_AND_ASSIGN(const Logits actual, Evaluate(*gpus, &sent));
    EXPECT_TRUE(SameBytes(expected, actual)) << GpuLinksName(kind);
    if (kind == GpuLinks::kHost) {
      by_host = sent;
    } else {
      EXPECT_LT(sent, by_host) << GpuLinksName(kind) << ": rows went with the frames";
    }
  }
}

class GpuLinksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kHasStandIn) setenv("DOVETAIL_NCCL_LIBRARY", kStandIn, 1);
    gguf_ = testing::TempFile("gpu_links.gguf");
    testing::WriteTinyLlama(
        gguf_,
        {.layers = 4, .hidden = 256, .ffn = 256, .type = WeightType::kQ8_0, .tokenizer = false});
  }
  void TearDown() override { std::remove(gguf_.c_str()); }
  std::string gguf_;
};

TEST_F(GpuLinksTest, HaveTheBytesOfACpuWorker) { ExpectCpuBytes(gguf_); }

TEST_F(GpuLinksTest, BetweenPartsOfLayersWithExperts) {
  const std::string gguf = testing::DataPath("golden/qwen2moe/model-bf16.gguf");
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  ExpectCpuBytes(gguf);
}

// A place that was taken for a step whose values are not finite any more is the next step's.
TEST_F(GpuLinksTest, AStepThatFailsLeavesThemInOrder) {
  constexpr int kBadToken = 5;
  testing::GgufWriter writer = testing::MakeTinyLlama({.layers = 4, .tokenizer = false});
  for (testing::GgufWriter::Tensor& t : writer.tensors()) {
    if (t.name != "token_embd.weight") continue;
    const float infinity = std::numeric_limits<float>::infinity();
    std::memcpy(&t.data[kBadToken * 64 * sizeof(float)], &infinity, sizeof(infinity));
  }
  writer.Write(gguf_);
  for (GpuLinks kind : {GpuLinks::kIpc, GpuLinks::kNccl}) {
    if (kind == GpuLinks::kNccl && !kHasStandIn) continue;
    ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(OptionsFor(gguf_, kind)));
    const auto run = [&](int32_t token) {
      transport::StepFrame frame = pipeline->NewFrame();
      LocalPipeline::AddRows({1, 2, token}, 0, 3, 0, 1, transport::SequenceStep::kReturnLogits, {},
                             &frame);
      return pipeline->RunStep(frame);
    };
    ASSERT_OK_AND_ASSIGN(const auto first, run(3));
    EXPECT_EQ(first.header.error_layer, 0u);
    ASSERT_OK_AND_ASSIGN(const auto failed, run(kBadToken));
    EXPECT_GT(failed.header.error_layer, 0u);
    ASSERT_OK_AND_ASSIGN(const auto second, run(3));
    EXPECT_EQ(first.logits, second.logits) << GpuLinksName(kind);
  }
}

// A GPU that cannot map another one's memory.
class AloneDevice : public worker::SimtDevice {
 public:
  AloneDevice() : SimtDevice(1) {}
  absl::StatusOr<const uint8_t*> MapLink(const worker::LinkMemory&) override {
    return absl::UnimplementedError("peer access is not supported");
  }
};

TEST_F(GpuLinksTest, WhatCannotBeMappedGoesByTheHostOrIsRefused) {
  LocalPipelineOptions options = OptionsFor(gguf_, GpuLinks::kAuto);
  options.make_device = [](int worker) -> std::unique_ptr<worker::Device> {
    return worker < 2 ? std::make_unique<AloneDevice>() : nullptr;
  };
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options));
  uint64_t sent = 0;
  ASSERT_OK_AND_ASSIGN(const Logits by_host, Evaluate(*pipeline, &sent));
  options.make_device = OnGpus;
  ASSERT_OK_AND_ASSIGN(auto linked, LocalPipeline::Start(options));
  ASSERT_OK_AND_ASSIGN(const Logits by_link, Evaluate(*linked, &sent));
  EXPECT_TRUE(SameBytes(by_host, by_link));

  options.make_device = [](int worker) -> std::unique_ptr<worker::Device> {
    return worker < 2 ? std::make_unique<AloneDevice>() : nullptr;
  };
  options.shape.gpu_links = GpuLinks::kIpc;
  EXPECT_THAT(LocalPipeline::Start(options).status().message(),
              ::testing::AllOf(HasSubstr("simt:"), HasSubstr(" -> simt:")));
}

TEST_F(GpuLinksTest, WithoutNcclItsAbsenceIsTold) {
  // A process opens the library once: a new one is asked.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto start = [&] {
    setenv("DOVETAIL_NCCL_LIBRARY", "/nonexistent/libnccl.so.2", 1);
    const auto pipeline = LocalPipeline::Start(OptionsFor(gguf_, GpuLinks::kNccl));
    std::fprintf(stderr, "%s\n", std::string(pipeline.status().message()).c_str());
    std::_Exit(pipeline.ok() ? 0 : 3);
  };
  EXPECT_EXIT(start(), ::testing::ExitedWithCode(3), "nonexistent/libnccl.so.2");
}

}  // namespace
}  // namespace dovetail
