// Experts of CPU workers that a GPU worker streams for a step: the bytes that the CPU workers make,
// whatever fits the buffers at once, and whoever has which experts.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "tests/testing/gpu_device.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail {
namespace {

using testing::DataPath;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SameBytes;
using transport::StepFrame;
using transport::StepHeader;

// Routed experts in parts of a quarter or so on the workers named in turn, the rest on cpu:0.
Route ExpertsOn(const model::ModelConfig& config, const std::vector<std::string>& owners) {
  Route route;
  const auto append = [&](const std::string& worker, const Op& op) {
    if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
    route.back().ops.push_back(op);
  };
  for (const Op& op : model::OpsOf(config)) {
    if (op.kind != OpKind::kExperts) {
      append("cpu:0", op);
      continue;
    }
    const int32_t count = op.expert_end, parts = static_cast<int32_t>(owners.size());
    for (int32_t i = 0; i < parts; ++i) {
      const Op part = {OpKind::kExperts, op.layer, count * i / parts, count * (i + 1) / parts};
      append(owners[i], part);
    }
  }
  return route;
}

// The largest matrix of one expert, as a CPU worker keeps it.
int64_t LargestMatrix(const std::string& gguf) {
  auto file = model::GgufFile::Open(gguf);
  auto config = model::LoadModelConfig(**file);
  auto slots = model::LayOutWeights(*config, **file, model::OpsOf(*config), PackedLayout::kP16);
  int64_t largest = 0;
  for (const model::WeightSlot& slot : *slots) {
    if (slot.op.kind == OpKind::kExperts && !slot.spec.is_vector) {
      largest = std::max(largest, slot.stride() + 4 * slot.spec.rows + 192);
    }
  }
  return largest;
}

struct Prompt {
  std::vector<int32_t> tokens;
  int chunk = 0;
};

// Logits of all rows, in chunks of which every second one is streamed where `stream` says so, and
// of one row after them.
absl::StatusOr<Logits> Compute(const LocalPipelineOptions& options, const Prompt& prompt,
                               bool stream, int* visits_saved) {
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  Logits rows;
  const int length = static_cast<int>(prompt.tokens.size());
  for (int position = 0, chunk = 0; position < length; ++chunk) {
    const bool last = position == length - 1;
    const int count = last ? 1 : std::min(prompt.chunk, length - 1 - position);
    StepFrame frame = (*pipeline)->NewFrame();
    LocalPipeline::AddRows(prompt.tokens, position, count, 0, count,
                           transport::SequenceStep::kReturnLogits, {}, &frame);
    if (stream && chunk % 2 == 0) frame.header.flags = StepHeader::kStreamExperts;
    auto output = (*pipeline)->RunStep(frame);
    if (!output.ok()) return output.status();
    if (output->segment_us.size() != (*pipeline)->route().size()) {
      return absl::InternalError("not every segment has a time");
    }
    *visits_saved +=
        static_cast<int>(std::count(output->segment_us.begin(), output->segment_us.end(), 0u));
    rows.emplace_back(output->logits.begin(), output->logits.end());
    position += count;
  }
  return rows;
}

struct Case {
  const char* model;
  std::vector<std::string> owners;
  int experts_at_once;  // of the largest matrix
};

class StreamedExperts : public ::testing::TestWithParam<Case> {};

TEST_P(StreamedExperts, HaveTheBytesOfTheirOwners) {
  const std::string gguf = DataPath(absl::StrCat("golden/", GetParam().model));
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.shape = {.max_rows = 24,
                   .max_sequences = 1,
                   .max_logit_rows = 24,
                   .context_length = 64,
                   .num_kv_blocks = 2,
                   .kv_type = KvType::kF16};
  Prompt prompt = {.chunk = 9};
  for (int i = 0; i < 30; ++i) prompt.tokens.push_back((i * 37 + 11) % 120);
  int none_saved = 0, saved = 0;
  ASSERT_OK_AND_ASSIGN(const Logits expected, Compute(options, prompt, false, &none_saved));
  options.make_route = [](const model::ModelConfig& config) {
    return ExpertsOn(config, GetParam().owners);
  };
  options.make_device = [](int worker) {
    return worker == 0 ? testing::MakeGpu(testing::TestSeed()) : nullptr;
  };
  options.shape.stream_bytes = (LargestMatrix(gguf) * GetParam().experts_at_once + 63) / 64 * 64;
  ASSERT_OK_AND_ASSIGN(const Logits streamed, Compute(options, prompt, true, &saved));
  EXPECT_TRUE(SameBytes(expected, streamed));
  EXPECT_GT(saved, 0) << "nothing was streamed";
}

INSTANTIATE_TEST_SUITE_P(
    Models, StreamedExperts,
    ::testing::Values(Case{"deepseek3/model-q4_k_m.gguf", {"cpu:1"}, 1},
                      Case{"deepseek3/model-mxfp4_moe.gguf", {"cpu:1"}, 3},
                      Case{"deepseek3/model-q4_k_m.gguf", {"cpu:1", "cpu:2"}, 2},
                      Case{"deepseek3/model-q4_k_m.gguf", {"cpu:0", "cpu:1"}, 2},
                      Case{"deepseek3/model-q4_k_m.gguf", {"cpu:1", "cpu:0", "cpu:2"}, 1000},
                      Case{"gpt-oss/model-bf16.gguf", {"cpu:1"}, 2},
                      Case{"qwen3moe/model-bf16.gguf", {"cpu:1"}, 2}),
    [](const auto& info) { return absl::StrCat("Case", info.index); });

// A worker that keeps its weights to itself.
TEST(StreamedExperts, NeedWeightsThatOthersCanRead) {
  const std::string gguf = DataPath("golden/deepseek3/model-q4_k_m.gguf");
  if (gguf.empty()) GTEST_SKIP() << "no golden models here";
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.in_place = true;
  options.shape.max_rows = 8;
  options.shape.stream_bytes = LargestMatrix(gguf);
  options.make_route = [](const model::ModelConfig& config) {
    return ExpertsOn(config, {"cpu:1"});
  };
  options.make_device = [](int worker) {
    return worker == 0 ? testing::MakeGpu(testing::TestSeed()) : nullptr;
  };
  EXPECT_THAT(LocalPipeline::Start(options).status().message(),
              ::testing::AllOf(::testing::HasSubstr("the experts of cpu:1 cannot be streamed"),
                               ::testing::HasSubstr("memory: shared")));
}

}  // namespace
}  // namespace dovetail
