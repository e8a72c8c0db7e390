// A step of the scheduler allocates nothing: decodes, chunks, admissions, shared blocks, growth,
// preemptions both ways, and what is learned from it.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "coordinator/scheduler.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

static std::atomic<int> num_allocations{0};

[[gnu::noinline]] void* operator new(size_t size) {
  ++num_allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace dovetail::coordinator {
namespace {

std::unique_ptr<Sequence> MakeSequence(uint64_t id, int prompt, int total) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->tokens.reserve(total);
  for (int i = 0; i < prompt; ++i) sequence->tokens.push_back(i < 40 ? i : static_cast<int>(id));
  sequence->num_prompt_tokens = prompt;
  sequence->max_total_tokens = total;
  return sequence;
}

TEST(SchedulerTest, AStepAllocatesNothing) {
  for (const Preemption preemption : {Preemption::kSwap, Preemption::kRecompute}) {
    SchedulerOptions options;
    options.shape.max_rows = 48;
    options.shape.max_sequences = 6;
    options.shape.max_logit_rows = 6;
    options.shape.context_length = 256;
    options.shape.num_kv_blocks = 16;
    options.shape.num_swap_blocks = 16;
    options.chunk_size = 40;
    options.lanes = 2;
    options.adaptive_lanes = true;
    options.preemption = preemption;
    Scheduler scheduler(options);
    scheduler.cost_model().SetRoute({0, 1, 0});
    transport::StepFrame frame;
    frame.Reserve(options.shape);
    absl::Time now = absl::UnixEpoch();
    for (uint64_t id = 1; id <= 12; ++id) {
      scheduler.Add(MakeSequence(id, 30 + 5 * static_cast<int>(id), 200), now);
    }
    int steps = 0;
    const int before = num_allocations.load();
    for (; steps < 300; ++steps) {
      now += absl::Milliseconds(3);
      for (int lane = 0; lane < options.lanes; ++lane) scheduler.Schedule(lane, now, &frame);
      for (int lane = 0; lane < options.lanes; ++lane) {
        if (scheduler.in_flight(lane).empty()) continue;
        for (const ScheduledRows& rows : scheduler.in_flight(lane)) {
          if (rows.samples) rows.sequence->tokens.push_back(7);
        }
        const uint32_t us[] = {200, 300, 100};
        scheduler.cost_model().Observe(scheduler.work(lane), us, 1e-3, false);
        scheduler.CompleteStep(lane);
      }
      // Ends are not steps: they give memory back.
      for (uint64_t id = 1; id <= 12; ++id) {
        Sequence* sequence = scheduler.Find(id);
        if (sequence != nullptr && sequence->num_tokens() == 200) scheduler.Remove(sequence);
      }
    }
    EXPECT_EQ(num_allocations.load() - before, 0);
    EXPECT_OK(scheduler.Audit());
    EXPECT_GT(scheduler.num_preemptions(), 0u);
    EXPECT_EQ(scheduler.counts().swaps > 0, preemption == Preemption::kSwap);
    EXPECT_GT(scheduler.kv().num_found_tokens(), 0u);
  }
  const int before = num_allocations.load();
  std::vector<int> some(3);
  EXPECT_GT(num_allocations.load() + some[0], before) << "the counter counts";
}

}  // namespace
}  // namespace dovetail::coordinator
