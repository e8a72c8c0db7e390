#include "worker/layers/attention.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace dovetail::worker {
namespace {

// Rows that a thread takes at a time. Later rows attend to more keys, so equal shares are not equal
// work: threads take small ones until none is left.
constexpr int64_t kMaxShareRows = 16;
constexpr int64_t kSharesPerThread = 4;

// Heads of one task where all heads read the same keys: a task has enough queries to make up for
// widening a block, and a single row still has tasks for several threads.
constexpr int32_t kMaxTaskHeads = 16;

// Splits of a context from which on it is worth its merging to share it between threads.
constexpr int64_t kSharedSplits = 4;

// The largest divisor of the heads that share a KV head up to kMaxTaskHeads; all of them where they
// are few.
int32_t HeadsPerTask(const kernels::AttentionArgs& args) {
  const int32_t sharing = args.num_heads / args.kv.shape.num_heads;
  int32_t heads = std::min(sharing, kMaxTaskHeads);
  while (sharing % heads != 0) --heads;
  return heads;
}

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
bool SharesContexts(const StepContext& step, const kernels::AttentionArgs& args,
                    const AttentionWork& work) {
  const int num_threads = step.pool.num_threads();
  const int64_t floats =
      work.tasks * work.splits * args.heads_per_task * kernels::AttentionPartFloats(args.kv.shape);
  return work.tasks < 4 * num_threads && work.tasks % num_threads != 0 &&
         work.splits >= kSharedSplits && floats <= step.ws.attn_parts_floats;
}

// Shares [0, total): fn(args, begin, end), args with the scratch of the thread that runs it.
template <typename Fn>
void ShareAttention(StepContext& step, const kernels::AttentionArgs& args, int64_t total,
                    const Fn& fn) {
  WorkShare work(total, 1, step.pool.num_threads());
  step.pool.Run([&](int idx, int) {
    kernels::AttentionArgs mine = args;
    mine.scratch = step.ws.attn_scratch + idx * step.ws.attn_scratch_floats;
    Range piece;
    while (work.Take(&piece)) fn(mine, piece.begin, piece.end);
  });
}

void RunSharedContexts(StepContext& step, kernels::AttentionArgs args, const AttentionWork& work) {
  args.parts = step.ws.attn_parts;
  args.part_splits = work.splits;
  ShareAttention(step, args, work.tasks * work.splits,
                 [&](const kernels::AttentionArgs& mine, int64_t from, int64_t to) {
                   while (from < to) {
                     const int64_t task = from / work.splits, begin = from % work.splits;
                     const int64_t end = std::min(work.splits, begin + to - from);
                     step.kernels.attention_parts(mine, work.first_task + task, begin, end);
                     from += end - begin;
                   }
                 });
  ShareAttention(
      step, args, work.tasks, [&](const kernels::AttentionArgs& mine, int64_t begin, int64_t end) {
        step.kernels.attention_merge(mine, work.first_task + begin, work.first_task + end);
      });
}

}  // namespace

void RunAttention(StepContext& step, kernels::AttentionArgs args, int64_t first, int64_t end) {
  args.sequences = step.sequences.data();
  args.num_sequences = static_cast<int32_t>(step.sequences.size());
  args.first_row = first;
  args.heads_per_task = HeadsPerTask(args);
  const AttentionWork work = WorkOf(args, first, end);
  if (SharesContexts(step, args, work)) return RunSharedContexts(step, args, work);
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t rows = end - first;
  const int num_threads = step.pool.num_threads();
  const int64_t share_rows =
      std::clamp<int64_t>(rows / (kSharesPerThread * num_threads), 1, kMaxShareRows);
  // Few rows: a task is one group of one row, and the groups are what there is to share.
  const int64_t share = rows < 2 * num_threads ? 1 : share_rows * groups;
  const int64_t num_shares = (work.tasks + share - 1) / share;
  std::atomic<int64_t> next{0};
  step.pool.Run([&](int idx, int) {
    kernels::AttentionArgs mine = args;
    mine.scratch = step.ws.attn_scratch + idx * step.ws.attn_scratch_floats;
    for (;;) {
      const int64_t taken = next.fetch_add(1, std::memory_order_relaxed);
      if (taken >= num_shares) break;
      const int64_t begin = (num_shares - 1 - taken) * share;  // the long ones first
      step.kernels.attention(mine, work.first_task + begin,
                             work.first_task + std::min(begin + share, work.tasks));
    }
  });
}

void RunKvAppend(StepContext& step, kernels::KvAppendArgs args, int64_t begin, int64_t end) {
  args.sequences = step.sequences.data();
  args.num_sequences = static_cast<int32_t>(step.sequences.size());
  if (!step.kernels.kv_append(args, begin, end)) {
    step.finite.store(false, std::memory_order_relaxed);
  }
}

Attention::Attention(const AttentionWeights& weights, const AttentionShape& shape,
                     const kernels::KvCacheView& kv, MemberColumns inner, MemberColumns outer)
    : w_(weights), shape_(shape), kv_(kv), inner_(std::move(inner)), outer_(std::move(outer)) {
  const int32_t block = std::max(w_.o_proj.activation_block(), 1);
  for (const Range& part : inner_.parts) whole_blocks_ &= part.end % block == 0;
  qkv_forms_ = ActivationForms::Of({&w_.q_proj, &w_.k_proj, &w_.v_proj});
  o_forms_ = ActivationForms::Of({&w_.o_proj});
}

void Attention::Forward(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t rows = step.x_rows;
  const LinearInput normed = NormedInput(step, w_.norm, qkv_forms_);
  RunProducts(step, {{&w_.q_proj, ws.q}, {&w_.k_proj, ws.k}, {&w_.v_proj, ws.v}}, normed, rows,
              /*check_finite=*/false);
  RotateAndStore(step);
  Attend(step);
  const LinearInput attended = Attended(step);
  const int64_t hidden = w_.norm.cols;
  const bool accumulate = w_.post_norm.weight == nullptr;
  float* y = accumulate ? step.x : ws.normed;
  RunProducts(step, {{&w_.o_proj, y + outer_.begin(), accumulate, hidden}}, attended, rows,
              /*check_finite=*/true);
  GatherColumns(step, y, hidden, rows, outer_);
  if (!accumulate) AddNormed(step, w_.post_norm, y);
}

LinearInput Attention::Attended(StepContext& step) const {
  float* attn = step.ws.attn;
  const int32_t cols = w_.o_proj.in_features;
  const LinearInput attended(attn, cols, o_forms_, step.ws.inner_act);
  const auto quantize = [&](int32_t first, int32_t past) {
    ForRows(step, step.x_rows, past - first, [&](int64_t begin, int64_t end) {
      attended.Quantize(step.kernels, begin, end, first, past);
    });
  };
  if (whole_blocks_) {
    const auto first = static_cast<int32_t>(inner_.begin());
    quantize(first, first + shape_.num_heads * shape_.head_dim);
    attended.GatherForms(step, attn, step.x_rows, inner_);
  } else {
    GatherColumns(step, attn, cols, step.x_rows, inner_);
    quantize(0, cols);
  }
  return attended;
}

// Heads, or whole rows, of q or k: [rows, cols], dense.
void Attention::NormHeads(StepContext& step, const RmsNorm& norm, float* x, int32_t cols,
                          int64_t begin, int64_t end) const {
  if (norm.weight == nullptr) return;
  const int64_t parts = cols / norm.cols;
  step.kernels.rms_norm(norm.Args(x, x), begin * parts, end * parts);
}

void Attention::RotateAndStore(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t q_cols = shape_.num_heads * shape_.head_dim;
  const int32_t kv_cols = shape_.num_kv_heads * shape_.head_dim;
  kernels::RopeArgs rope_q = {.x = ws.q,
                              .x_stride = q_cols,
                              .cos_sin = shape_.local_rope ? ws.cos_sin_local : ws.cos_sin,
                              .num_heads = shape_.num_heads,
                              .head_dim = shape_.head_dim,
                              .rope_dim = shape_.rope_dim,
                              .interleaved = shape_.rope_interleaved};
  kernels::RopeArgs rope_k = rope_q;
  rope_k.x = ws.k;
  rope_k.x_stride = kv_cols;
  rope_k.num_heads = shape_.num_kv_heads;
  const kernels::KvAppendArgs append = {
      .kv = kv_, .k = ws.k, .k_stride = kv_cols, .v = ws.v, .v_stride = kv_cols};
  ForRows(step, step.rows, q_cols + 2 * kv_cols, [&](int64_t begin, int64_t end) {
    NormHeads(step, w_.q_norm, ws.q, q_cols, begin, end);
    NormHeads(step, w_.k_norm, ws.k, kv_cols, begin, end);
    step.kernels.rope(rope_q, begin, end);
    step.kernels.rope(rope_k, begin, end);
    RunKvAppend(step, append, begin, end);
  });
}

void Attention::Attend(StepContext& step) const {
  const int32_t q_cols = shape_.num_heads * shape_.head_dim;
  RunAttention(step,
               {.kv = kv_,
                .q = step.ws.q,
                .q_stride = q_cols,
                .out = step.ws.attn + inner_.begin(),
                .out_stride = w_.o_proj.in_features,
                .num_heads = shape_.num_heads,
                .scale = shape_.scale,
                .window = shape_.window,
                .sinks = w_.sinks},
               0, step.rows);
}

void FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                    float* cos_sin) {
  const int32_t half = static_cast<int32_t>(inv_freq.size());
  ForRows(step, step.rows, 16 * half, [&](int64_t begin, int64_t end) {
    for (const kernels::SequenceRows& sequence : step.sequences) {
      const int64_t first = std::max<int64_t>(begin, sequence.row_begin);
      const int64_t last = std::min<int64_t>(end, sequence.row_begin + sequence.num_rows);
      for (int64_t row = first; row < last; ++row) {
        const int32_t position = sequence.position + static_cast<int32_t>(row - sequence.row_begin);
        kernels::RopeAngles(position, inv_freq.data(), half, factor, cos_sin + row * 2 * half);
      }
    }
  });
}

}  // namespace dovetail::worker
