// What both kinds of device need to know of a step's attention. Pure functions.
#ifndef DOVETAIL_WORKER_LAYERS_ATTENTION_TASKS_H_
#define DOVETAIL_WORKER_LAYERS_ATTENTION_TASKS_H_

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/kernel_table.h"
#include "kernels/ops.h"

namespace dovetail::worker {

// Heads of one task where all heads read the same keys: a task has enough queries to make up for
// widening a block, and a single row still has tasks for several threads.
inline constexpr int32_t kMaxTaskHeads = 16;

// The largest divisor of the heads that share a KV head up to kMaxTaskHeads; all of them where they
// are few.
inline int32_t HeadsPerTask(const kernels::AttentionArgs& args) {
  const int32_t sharing = args.num_heads / args.kv.shape.num_heads;
  int32_t heads = std::min(sharing, kMaxTaskHeads);
  while (sharing % heads != 0) --heads;
  return heads;
}

// The angles of rows [begin, end) of a step: row r's begin at cos_sin + r * 2 * inv_freq.size().
inline void FillAngles(absl::Span<const kernels::SequenceRows> sequences,
                       absl::Span<const float> inv_freq, float factor, int64_t begin, int64_t end,
                       float* cos_sin) {
  const int32_t half = static_cast<int32_t>(inv_freq.size());
  for (const kernels::SequenceRows& sequence : sequences) {
    const int64_t first = std::max<int64_t>(begin, sequence.row_begin);
    const int64_t last = std::min<int64_t>(end, sequence.row_begin + sequence.num_rows);
    for (int64_t row = first; row < last; ++row) {
      const int32_t position = sequence.position + static_cast<int32_t>(row - sequence.row_begin);
      kernels::RopeAngles(position, inv_freq.data(), half, factor, cos_sin + row * 2 * half);
    }
  }
}

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_ATTENTION_TASKS_H_
