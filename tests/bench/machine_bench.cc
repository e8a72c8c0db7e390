// What this machine can do, apart from any kernel of ours: the facts that layouts and products were
// chosen by (docs/kernels-measured.md, "The machine itself"), and the ceilings of all other
// figures.
//
//   int8_peak/ISA/threads:N        multiplications of 8-bit numbers, all threads together
//   instruction/NAME               a loop of one instruction: G a second, and a cycle
//   read/PAGES/threads:N/ahead:B   memory read line by line, asking for the line B bytes ahead
//   phase/threads:N/idle_us:T      an empty phase of a ThreadPool whose helpers were idle for T
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tests/bench/instruction_rate.h"

namespace dovetail::kernels {
namespace {

void Peak(benchmark::State& state, Isa isa) {
  ThreadPool pool(static_cast<int>(state.range(0)), {});
  double sum = 0;
  for (auto _ : state) {
    std::atomic<int64_t> all{0};
    pool.Run([&](int, int) { all.fetch_add(static_cast<int64_t>(Int8Peak(isa))); });
    sum = std::max(sum, static_cast<double>(all.load()));
  }
  state.counters["GMAC/s"] = sum / 1e9;
}

void Rate(benchmark::State& state, const Instruction& instruction) {
  double rate = 0, clock = 0;
  for (auto _ : state) {
    clock = ClockRate();
    rate = InstructionRate(instruction);
  }
  state.counters["G/s"] = rate / 1e9;
  state.counters["GMAC/s"] = rate * instruction.multiplications / 1e9;
  state.counters["a_cycle"] = rate / clock;
}

// Pages of 4 KiB or 2 MiB, as far as the kernel has such.
class Pages {
 public:
  Pages(size_t bytes, bool huge)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (data_ == MAP_FAILED) return;
    madvise(data_, bytes_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::memset(data_, 1, bytes_);
  }
  ~Pages() {
    if (data_ != MAP_FAILED) munmap(data_, bytes_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  const uint8_t* data() const {
    return data_ == MAP_FAILED ? nullptr : static_cast<const uint8_t*>(data_);
  }

 private:
  size_t bytes_;
  void* data_;
};

constexpr int64_t kLine = 64;

uint64_t ReadLines(const uint8_t* data, int64_t bytes, int64_t ahead) {
  uint64_t sum = 0;
  for (int64_t at = 0; at < bytes; at += kLine) {
    if (ahead > 0) __builtin_prefetch(data + at + ahead);
    uint64_t words[kLine / 8];
    std::memcpy(words, data + at, kLine);
    for (uint64_t word : words) sum += word;
  }
  return sum;
}

void Read(benchmark::State& state, bool huge) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  ThreadPool pool(static_cast<int>(state.range(0)), {});
  const int64_t ahead = state.range(1);
  const Pages pages(kBytes + 4096 * 16, huge);
  if (pages.data() == nullptr) return state.SkipWithError("mmap failed");
  for (auto _ : state) {
    pool.Run([&](int idx, int n) {
      const Range part = Slice(kBytes / 4096, idx, n);
      benchmark::DoNotOptimize(
          ReadLines(pages.data() + part.begin * 4096, (part.end - part.begin) * 4096, ahead));
    });
  }
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kBytes / 1e9, benchmark::Counter::kIsRate);
}

void Phase(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)), {});
  const std::chrono::microseconds idle(state.range(1));
  for (auto _ : state) {
    if (idle.count() > 0) std::this_thread::sleep_for(idle);
    const auto begin = std::chrono::steady_clock::now();
    pool.Run([](int, int) {});
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
}

const bool kRegistered = [] {
  for (const KernelTable* table : AvailableTables()) {
    if (table->isa == Isa::kScalar) continue;
    benchmark::RegisterBenchmark(absl::StrCat("int8_peak/", table->name).c_str(),
                                 [isa = table->isa](benchmark::State& s) { Peak(s, isa); })
        ->Arg(1)
        ->Arg(2)
        ->ArgName("threads")
        ->Iterations(3);
  }
  for (const Instruction& instruction : Instructions()) {
    if (!CanRun(instruction)) continue;
    benchmark::RegisterBenchmark(absl::StrCat("instruction/", instruction.name).c_str(),
                                 [&instruction](benchmark::State& s) { Rate(s, instruction); })
        ->Iterations(1);
  }
  for (bool huge : {false, true}) {
    benchmark::RegisterBenchmark(huge ? "read/2MiB" : "read/4KiB",
                                 [huge](benchmark::State& s) { Read(s, huge); })
        ->ArgsProduct({{1, 2}, {0, 512, 1024, 2048, 4096, 8192}})
        ->ArgNames({"threads", "ahead"})
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("phase", Phase)
      ->ArgsProduct({{1, 2}, {0, 20, 1000}})
      ->ArgNames({"threads", "idle_us"})
      ->Iterations(1000)
      ->UseManualTime();
  return true;
}();

}  // namespace
}  // namespace dovetail::kernels
