#include "kernels/bandwidth.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/posix.h"
#include "kernels/cpu/processor.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

constexpr int kPasses = 4;
constexpr int64_t kUnit = 4096;
constexpr int64_t kLine = 64;

[[gnu::target("clflushopt")]] void FlushTogether(uint8_t* data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kLine) _mm_clflushopt(data + i);
}

void LeaveCaches(uint8_t* data, int64_t bytes) {
  if (processor_flushes_together) {
    FlushTogether(data, bytes);
  } else {
    for (int64_t i = 0; i < bytes; i += kLine) _mm_clflush(data + i);
  }
  _mm_mfence();
}

}  // namespace

double MeasureReadBandwidth(ThreadPool* pool, int64_t bytes) {
  const int64_t units = std::max<int64_t>(bytes / kUnit, pool->num_threads());
  const absl::StatusOr<MemoryMap> buffer = MemoryMap::MapHuge(static_cast<uint64_t>(units * kUnit));
  if (!buffer.ok()) return 0;
  pool->Run([&](int idx, int n) {
    const Range part = Slice(units, idx, n);
    std::memset(buffer->data() + part.begin * kUnit, idx + 1, (part.end - part.begin) * kUnit);
  });
  const KernelTable& table = *AvailableTables().back();
  std::atomic<uint64_t> checksum{0};
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    pool->Run([&](int idx, int n) {
      const Range part = Slice(units, idx, n);
      LeaveCaches(buffer->data() + part.begin * kUnit, (part.end - part.begin) * kUnit);
    });
    const auto start = std::chrono::steady_clock::now();
    pool->Run([&](int idx, int n) {
      const Range part = Slice(units, idx, n);
      checksum.fetch_add(
          table.read_stream(buffer->data() + part.begin * kUnit, (part.end - part.begin) * kUnit),
          std::memory_order_relaxed);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(units * kUnit) / seconds.count() / 1e9);
  }
  return best;
}

}  // namespace dovetail::kernels
