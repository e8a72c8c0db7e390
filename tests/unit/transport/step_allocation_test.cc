// A step on its way allocates nothing: counted by this program's own operator new.
#include <atomic>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "step_frame_testing.h"
#include "tests/testing/status_matchers.h"
#include "transport/exchange.h"

namespace {
std::atomic<int> num_allocations{0};
}  // namespace

// Not inlined: the compiler would see malloc on one side and delete on the other.
[[gnu::noinline]] void* operator new(size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace dovetail::transport {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

TEST(Step, AllocatesNothingAfterReserve) {
  const ExchangeSpec spec = {.epoch = testing::kEpoch,
                             .endpoints = {kCoordinator, "cpu:0"},
                             .edges = {{kCoordinator, "cpu:0"}},
                             .ring_bytes = 1 << 20};
  auto exchange = Exchange::CreateInProcess(spec);
  auto sender = *exchange->Sender(kCoordinator, "cpu:0");
  auto receiver = *exchange->Receiver(kCoordinator, "cpu:0");
  const StepShape shape = testing::SmallShape();
  std::vector<testing::FrameAndRows> frames;
  std::vector<StepOutput> outputs;
  testing::FrameMaker maker(1);
  for (int i = 0; i < 50; ++i) {
    frames.push_back(maker.Next());
    outputs.push_back(maker.NextOutput());
  }
  StepFrame frame;
  frame.Reserve(shape);
  StepOutput output;
  output.Reserve(shape, testing::kVocabSize, testing::kHiddenSize);
  testing::RowsRoom room;
  bool ok = true;
  const int before = num_allocations.load();
  for (size_t i = 0; i < frames.size(); ++i) {
    ok &= SendStep(*sender, frames[i].frame, frames[i].rows(), kLong).ok();
    ok &= ReceiveStep(*receiver, shape, testing::kRow, testing::kEpoch, &frame, room.span(), kLong)
              .ok();
    ok &= SendOutput(*sender, outputs[i], kLong).ok();
    ok &= ReceiveOutput(*receiver, shape, testing::kEpoch, testing::kVocabSize,
                        testing::kHiddenSize, &output, kLong)
              .ok();
  }
  EXPECT_EQ(num_allocations.load() - before, 0);
  EXPECT_TRUE(ok);
  // The counter counts.
  const int before_vector = num_allocations.load();
  std::vector<int> some(3);
  EXPECT_GT(num_allocations.load() + some[0], before_vector);
}

}  // namespace
}  // namespace dovetail::transport
