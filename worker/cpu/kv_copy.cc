#include "worker/cpu/kv_copy.h"

#include <cstring>

namespace dovetail::worker {

void CopyBlocks(absl::Span<const KvRegion> regions, absl::Span<const transport::BlockCopy> copies,
                ThreadPool* pool) {
  if (regions.empty() || copies.empty()) return;
  // Each thread has its part of every block, so that the order of copies holds without a barrier.
  pool->Run([&](int idx, int n) {
    for (const KvRegion& region : regions) {
      const Range part = Slice(region.block_bytes, idx, n);
      const size_t bytes = static_cast<size_t>(part.end - part.begin);
      if (bytes == 0) continue;
      uint8_t* const data = region.data + part.begin;
      for (const transport::BlockCopy& copy : copies) {
        std::memcpy(data + copy.to * region.block_bytes, data + copy.from * region.block_bytes,
                    bytes);
      }
    }
  });
}

}  // namespace dovetail::worker
