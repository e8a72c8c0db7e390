#include "kernels/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/posix.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

constexpr int kPasses = 4;
constexpr int64_t kUnit = 4096;

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
