// CpuOps::Attend: how the threads share attention.
#include <algorithm>
#include <atomic>

#include "worker/cpu/cpu_ops.h"
#include "worker/layers/attention_tasks.h"

namespace dovetail::worker {
namespace {

// Rows that a thread takes at a time. Later rows attend to more keys, so equal shares are not equal
// work: threads take small ones until none is left.
constexpr int64_t kMaxShareRows = 16;
constexpr int64_t kSharesPerThread = 4;

// Splits of a context from which on it is worth its merging to share it between threads.
constexpr int64_t kSharedSplits = 4;

// Tasks [first row's, ..) of so many rows, and the longest context among them in splits.
struct AttentionWork {
  int64_t first_task, tasks, splits;
};

AttentionWork WorkOf(const kernels::AttentionArgs& args, int64_t first, int64_t end) {
  const int64_t groups = args.num_heads / args.heads_per_task;
  AttentionWork work = {first * groups, (end - first) * groups, 0};
  for (int32_t i = 0; i < args.num_sequences; ++i) {
    const kernels::SequenceRows& s = args.sequences[i];
    if (s.row_begin >= end || s.row_begin + s.num_rows <= first) continue;
    const int64_t keys = int64_t{s.position} + s.num_rows;
    work.splits = std::max(work.splits, (keys + kKvSplitTokens - 1) / kKvSplitTokens);
  }
  return work;
}

// Few tasks that do not divide among the threads, long ones, and room for their parts.
bool SharesContexts(const StepContext& step, int num_threads, const kernels::AttentionArgs& args,
                    const AttentionWork& work) {
  const int64_t floats =
      work.tasks * work.splits * args.heads_per_task * kernels::AttentionPartFloats(args.kv.shape);
  return work.tasks < 4 * num_threads && work.tasks % num_threads != 0 &&
         work.splits >= kSharedSplits && floats <= step.ws.attn_parts_floats;
}

// Shares [0, total): fn(args, begin, end), args with the scratch of the thread that runs it.
template <typename Fn>
void ShareAttention(StepContext& step, ThreadPool& pool, const kernels::AttentionArgs& args,
                    int64_t total, const Fn& fn) {
  WorkShare work(total, 1, pool.num_threads());
  pool.Run([&](int idx, int) {
    kernels::AttentionArgs mine = args;
    mine.scratch = step.ws.attn_scratch + idx * step.ws.attn_scratch_floats;
    Range piece;
    while (work.Take(idx, &piece)) fn(mine, piece.begin, piece.end);
  });
}

void RunSharedContexts(StepContext& step, const kernels::KernelTable& kernels, ThreadPool& pool,
                       kernels::AttentionArgs args, const AttentionWork& work) {
  args.parts = step.ws.attn_parts;
  args.part_splits = work.splits;
  ShareAttention(step, pool, args, work.tasks * work.splits,
                 [&](const kernels::AttentionArgs& mine, int64_t from, int64_t to) {
                   while (from < to) {
                     const int64_t task = from / work.splits, begin = from % work.splits;
                     const int64_t end = std::min(work.splits, begin + to - from);
                     kernels.attention_parts(mine, work.first_task + task, begin, end);
                     from += end - begin;
                   }
                 });
  ShareAttention(step, pool, args, work.tasks,
                 [&](const kernels::AttentionArgs& mine, int64_t begin, int64_t end) {
                   kernels.attention_merge(mine, work.first_task + begin, work.first_task + end);
                 });
}

}  // namespace

void CpuOps::Attend(StepContext& step, kernels::AttentionArgs args, int64_t first, int64_t end) {
  args.sequences = step.sequences.data();
  args.num_sequences = static_cast<int32_t>(step.sequences.size());
  args.first_row = first;
  args.heads_per_task = HeadsPerTask(args);
  const AttentionWork work = WorkOf(args, first, end);
  const int num_threads = pool_.num_threads();
  if (SharesContexts(step, num_threads, args, work)) {
    return RunSharedContexts(step, kernels_, pool_, args, work);
  }
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t rows = end - first;
  const int64_t share_rows =
      std::clamp<int64_t>(rows / (kSharesPerThread * num_threads), 1, kMaxShareRows);
  // Few rows: a task is one group of one row, and the groups are what there is to share.
  const int64_t share = rows < 2 * num_threads ? 1 : share_rows * groups;
  const int64_t num_shares = (work.tasks + share - 1) / share;
  std::atomic<int64_t> next{0};
  pool_.Run([&](int idx, int) {
    kernels::AttentionArgs mine = args;
    mine.scratch = step.ws.attn_scratch + idx * step.ws.attn_scratch_floats;
    for (;;) {
      const int64_t taken = next.fetch_add(1, std::memory_order_relaxed);
      if (taken >= num_shares) break;
      const int64_t begin = (num_shares - 1 - taken) * share;  // the long ones first
      kernels_.attention(mine, work.first_task + begin,
                         work.first_task + std::min(begin + share, work.tasks));
    }
  });
}

}  // namespace dovetail::worker
