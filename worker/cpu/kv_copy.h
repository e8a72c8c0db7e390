// Copies of KV blocks within a CPU worker's KV cache: to and from the swap area, and of blocks that
// two sequences share in part.
#ifndef DOVETAIL_WORKER_CPU_KV_COPY_H_
#define DOVETAIL_WORKER_CPU_KV_COPY_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "transport/step_frame.h"
#include "worker/layers/step_ops.h"

namespace dovetail::worker {

// Makes the copies in every region, in their order: a later one sees what an earlier one left. The
// block ids were checked.
void CopyBlocks(absl::Span<const KvRegion> regions, absl::Span<const transport::BlockCopy> copies,
                ThreadPool* pool);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CPU_KV_COPY_H_
