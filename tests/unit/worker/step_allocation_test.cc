// A worker's step allocates nothing, on a processor and on a GPU: counted by this program's own
// operator new, in all threads but the test's. The GPU is one whose kernels do nothing, since the
// shim that runs them elsewhere allocates for itself.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/device/simt_device.h"

namespace {
std::atomic<int> num_allocations{0};
std::atomic<bool> is_counting{false};
thread_local bool is_test = false;
}  // namespace

// Not inlined: the compiler would see malloc on one side and delete on the other.
[[gnu::noinline]] void* operator new(size_t size) {
  if (!is_test && is_counting.load()) num_allocations.fetch_add(1);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace dovetail::worker {
namespace {

using testing::LocalPipeline;
using testing::LocalPipelineOptions;

template <typename... Args>
void Nothing(Args... /*args*/) {}

void SignalAlone(const kernels::CopyPieces& /*pieces*/, const kernels::DoneSignal& signal,
                 void* /*stream*/) {
  if (signal.flag != nullptr) *signal.flag = ++*signal.raised;
}

const kernels::DeviceTable& IdleTable() {
  static const kernels::DeviceTable table = {.name = "idle",
                                             .rms_norm = Nothing,
                                             .rms_norm_quantize = Nothing,
                                             .quantize = Nothing,
                                             .matmul = Nothing,
                                             .silu_mul = Nothing,
                                             .gelu_mul = Nothing,
                                             .swiglu_oai = Nothing,
                                             .silu_mul_quantize = Nothing,
                                             .gelu_mul_quantize = Nothing,
                                             .swiglu_oai_quantize = Nothing,
                                             .sigmoid = Nothing,
                                             .combine = Nothing,
                                             .rope = Nothing,
                                             .rope_append = Nothing,
                                             .kv_append = Nothing,
                                             .attention = Nothing,
                                             .attention_parts = Nothing,
                                             .attention_merge = Nothing,
                                             .pack = Nothing,
                                             .embedding = Nothing,
                                             .argmax = Nothing,
                                             .router = Nothing,
                                             .sort_pairs = Nothing,
                                             .gather_rows = Nothing,
                                             .copy_rows = Nothing,
                                             .copy_pieces = SignalAlone,
                                             .check_finite = Nothing};
  return table;
}

class IdleGraph : public DeviceGraph {
 public:
  int64_t num_kernels() const override { return 1; }
};

class IdleDevice : public SimtDevice {
 public:
  IdleDevice() : SimtDevice(0) {}
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    if (is_counting.load()) num_allocations.fetch_add(1);
    return SimtDevice::Allocate(bytes);
  }
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override {
    if (is_counting.load()) num_allocations.fetch_add(1);
    return SimtDevice::AllocateHost(bytes);
  }
  const kernels::DeviceTable& kernels() const override { return IdleTable(); }
  void BeginCapture() override {}
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override {
    return std::make_unique<IdleGraph>();
  }

 private:
  void Enqueue(const DeviceGraph& /*graph*/) override {}
};

struct Stream {
  int position = 0;
  int rows = 0;
};

// Two sequences that each have so many rows, at their positions.
transport::StepFrame FrameOf(LocalPipeline& pipeline, const std::vector<Stream>& streams) {
  transport::StepFrame frame = pipeline.NewFrame();
  for (size_t i = 0; i < streams.size(); ++i) {
    const std::vector<int32_t> tokens(streams[i].position + streams[i].rows, 7);
    LocalPipeline::AddRows(tokens, streams[i].position, streams[i].rows, static_cast<int>(i) * 20,
                           1, transport::SequenceStep::kSample, {.temperature = 1.0f}, &frame);
  }
  return frame;
}

// Prompts, then tokens one by one; a GPU makes its graphs in the second of them.
void ExpectNoAllocation(const LocalPipelineOptions& options) {
  is_test = true;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options));
  int position = 0;
  const auto run = [&](int rows) {
    ASSERT_OK(pipeline->RunStep(FrameOf(*pipeline, {{position, rows}, {position, rows}})));
    position += rows;
  };
  run(40);
  for (int i = 0; i < 3; ++i) run(1);
  is_counting.store(true);
  for (int i = 0; i < 20; ++i) run(1);
  run(40);
  is_counting.store(false);
  EXPECT_EQ(num_allocations.exchange(0), 0);
}

LocalPipelineOptions OptionsFor(const std::string& gguf) {
  LocalPipelineOptions options;
  options.gguf = gguf;
  options.num_threads = 2;
  return options;
}

// All of a model's layers, and experts.
std::vector<std::string> Models() {
  std::vector<std::string> models = {testing::TempFile("step_allocation.gguf")};
  testing::WriteTinyLlama(models[0],
                          {.context = 512, .type = WeightType::kQ8_0, .tokenizer = false});
  const std::string deepseek = testing::DataPath("golden/deepseek3/model-q4_k_m.gguf");
  if (!deepseek.empty()) models.push_back(deepseek);
  return models;
}

TEST(WorkerStep, AllocatesNothingOnAProcessor) {
  for (const std::string& gguf : Models()) {
    SCOPED_TRACE(gguf);
    ExpectNoAllocation(OptionsFor(gguf));
  }
}

TEST(WorkerStep, AllocatesNothingOnAGpu) {
  for (const std::string& gguf : Models()) {
    SCOPED_TRACE(gguf);
    LocalPipelineOptions options = OptionsFor(gguf);
    options.make_device = [](int) { return std::make_unique<IdleDevice>(); };
    ExpectNoAllocation(options);
  }
}

TEST(WorkerStep, TheCounterCounts) {
  is_test = false;
  is_counting.store(true);
  std::vector<int> some(3);
  is_counting.store(false);
  EXPECT_GT(num_allocations.exchange(0) + some[0], 0);
}

}  // namespace
}  // namespace dovetail::worker
