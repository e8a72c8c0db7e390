#include "worker/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/packed_layout.h"
#include "kernels/in_place.h"
#include "worker/cpu/block_counter.h"
#include "worker/cpu/cpu_moe.h"
#include "worker/cpu/kv_copy.h"
#include "worker/layers/attention_tasks.h"

namespace dovetail::worker {
namespace {

// Rows `first`, first + n, first + 2 n ...
kernels::Activations EveryNthRow(kernels::Activations a, int64_t first, int64_t n) {
  const auto step = [&](auto** data, int64_t* stride) {
    if (*data == nullptr) return;
    *data += first * *stride;
    *stride *= n;
  };
  step(&a.f32, &a.f32_stride);
  step(&a.q, &a.q_stride);
  step(&a.d, &a.d_stride);
  step(&a.bsum, &a.bsum_stride);
  return a;
}

}  // namespace

CpuOps::CpuOps(const kernels::KernelTable* kernels, ThreadPool* pool, const Workspace* ws)
    : kernels_(*kernels),
      pool_(*pool),
      host_{.x = ws->x,
            .x_floats = ws->x_floats,
            .slot_experts = ws->experts.slot_experts,
            .slot_weights = ws->experts.slot_weights,
            .y = ws->experts.y,
            .y_floats = ws->experts.y_floats,
            .expert_begin = ws->experts.begin,
            .logits = ws->logits,
            .probs = ws->probs,
            .ids = ws->ids} {}

void CpuOps::CopyBlocks(absl::Span<const KvRegion> regions,
                        absl::Span<const transport::BlockCopy> copies) {
  worker::CopyBlocks(regions, copies, &pool_);
}

// The layer at which the step stopped is the one that it is at.
absl::Status CpuOps::Finish(StepContext& step, const SegmentVisit& /*visit*/, int32_t* not_finite) {
  const bool finite = step.finite.load(std::memory_order_relaxed);
  *not_finite = finite ? -1 : static_cast<int32_t>(step.op_numbers[step.part]);
  return absl::OkStatus();
}

void CpuOps::CheckFinite(StepContext& step, const float* x, int64_t stride, int64_t rows,
                         int64_t begin, int64_t end) {
  for (int64_t r = 0; r < rows; ++r) {
    if (!kernels_.all_finite(x + r * stride + begin, end - begin)) {
      step.finite.store(false, std::memory_order_relaxed);
      return;
    }
  }
}

void CpuOps::Embed(StepContext& step, const kernels::EmbeddingArgs& args, bool in_head) {
  const auto look_up = in_head ? kernels_.packed_embedding : kernels_.embedding;
  ForRows(step.rows, args.cols, [&](int64_t begin, int64_t end) {
    look_up(args, begin, end);
    CheckFinite(step, args.y + begin * args.y_stride, args.y_stride, end - begin, 0, args.cols);
  });
}

void CpuOps::FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                            float* cos_sin) {
  const int32_t half = static_cast<int32_t>(inv_freq.size());
  ForRows(step.rows, 16 * half, [&](int64_t begin, int64_t end) {
    FillAngles(step.sequences, inv_freq, factor, begin, end, cos_sin);
  });
}

void CpuOps::QuantizeRows(const LinearInput& input, int64_t begin, int64_t end,
                          const Range& columns) {
  input.ForEachBlock(
      [&](int32_t block) { kernels_.quantize({input.For(block, columns)}, begin, end); });
}

void CpuOps::NormAndQuantize(StepContext& /*step*/, const RmsNorm& norm, const float* x, float* y,
                             const LinearInput& input, int64_t rows) {
  ForRows(rows, norm.cols, [&](int64_t begin, int64_t end) {
    kernels_.rms_norm(norm.Args(x, y), begin, end);
    QuantizeRows(input, begin, end, {0, input.cols()});
  });
}

void CpuOps::AddNormed(StepContext& step, const RmsNorm& norm, const float* y) {
  kernels::RmsNormArgs args = norm.Args(y, step.x);
  args.accumulate = true;
  ForRows(step.x_rows, norm.cols, [&](int64_t begin, int64_t end) {
    kernels_.rms_norm(args, begin, end);
    CheckFinite(step, step.x + begin * norm.cols, norm.cols, end - begin, 0, norm.cols);
  });
}

void CpuOps::TakeLogitRows(StepContext& step, const RmsNorm& norm) {
  const int64_t cols = norm.cols;
  float* out = step.ws.logit_rows;
  const int64_t rows = static_cast<int64_t>(step.logit_rows.size());
  ForRows(rows, cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = step.x + step.logit_rows[i] * cols;
      kernels_.rms_norm(norm.Args(row, out + i * cols), 0, 1);
    }
    CheckFinite(step, out + begin * cols, cols, end - begin, 0, cols);
  });
  // A row may be wanted further up than it lay, so they move when all are done.
  std::memcpy(step.x, out, static_cast<size_t>(rows * cols) * sizeof(float));
}

void CpuOps::Quantize(StepContext& /*step*/, const LinearInput& input, int64_t rows,
                      const Range& columns) {
  ForRows(rows, columns.size(),
          [&](int64_t begin, int64_t end) { QuantizeRows(input, begin, end, columns); });
}

void CpuOps::Multiply(StepContext& step, const Linear& linear, const kernels::MatmulArgs& args,
                      int64_t begin, int64_t end) {
  if (linear.in_place) {
    kernels::MatmulInPlace(kernels_, args, begin, end,
                           step.ws.panels + ThreadPool::ThisThread() * step.ws.panels_bytes);
  } else {
    kernels_.matmul(args, begin, end);
  }
}

Range CpuOps::RunProductSlice(StepContext& step, const Product& product, const LinearInput& input,
                              int32_t rows, int64_t begin, int64_t end) {
  const Linear& linear = *product.linear;
  kernels::MatmulArgs args = MatmulArgsOf(linear, rows);
  args.x = input.For(linear.activation_block());
  args.y = product.y;
  args.y_stride = product.stride();
  args.accumulate = product.accumulate;
  Multiply(step, linear, args, begin, end);
  return {begin * kPanelRows, std::min<int64_t>(end * kPanelRows, linear.out_features)};
}

// Threads share the panels of all of them.
void CpuOps::Products(StepContext& step, absl::Span<const Product> products,
                      const LinearInput& input, int32_t rows, bool check_finite) {
  int64_t total = 0;
  for (const Product& product : products) total += product.linear->panels();
  pool_.Share(total, kPanelGrain, [&](int64_t from, int64_t to) {
    int64_t first = 0;  // panels of the products before this one
    for (const Product& product : products) {
      const int64_t panels = product.linear->panels();
      const int64_t begin = std::clamp(from - first, int64_t{0}, panels);
      const int64_t end = std::clamp(to - first, int64_t{0}, panels);
      first += panels;
      if (begin >= end) continue;
      const Range columns = RunProductSlice(step, product, input, rows, begin, end);
      if (check_finite) {
        CheckFinite(step, product.y, product.stride(), rows, columns.begin, columns.end);
      }
    }
  });
}

void CpuOps::RunGated(const Gated& gated, int64_t begin, int64_t end, const Range& columns) {
  const kernels::GatedArgs args = {.gate = gated.gate + columns.begin,
                                   .up = gated.up + columns.begin,
                                   .in_stride = gated.cols,
                                   .y = gated.y + columns.begin,
                                   .y_stride = gated.cols,
                                   .cols = static_cast<int32_t>(columns.size())};
  switch (gated.activation) {
    case model::Activation::kSilu:
      return kernels_.silu_mul(args, begin, end);
    case model::Activation::kGelu:
      return kernels_.gelu_mul(args, begin, end);
    case model::Activation::kSwigluOai:
      return kernels_.swiglu_oai(args, begin, end);
  }
  DT_CHECK(false);
}

// A few rows at a time, so that quantising finds them in the first-level cache.
void CpuOps::Activate(const Gated& gated, int64_t rows, const Range& columns,
                      const LinearInput& activated, const Range& activated_columns) {
  constexpr int64_t kFloats = 4096;
  const int64_t piece = std::max<int64_t>(kFloats / columns.size(), 1);
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t end = std::min(row + piece, rows);
    RunGated(gated, row, end, columns);
    QuantizeRows(activated, row, end, activated_columns);
  }
}

// Both products and the activation function in one phase.
void CpuOps::GatedProducts(StepContext& step, const GatedProduct& product, const LinearInput& input,
                           int32_t rows) {
  const Product gate = {product.gate_proj, product.gate + product.first, false, product.cols};
  const Product up = {product.up_proj, product.up + product.first, false, product.cols};
  const Gated gated = {product.activation, product.gate, product.up, product.gate, product.cols};
  const int64_t panels = product.gate_proj->panels();
  const BlockCounter blocks(step.ws.block_counts, panels, product.panels_per_block);
  pool_.Share(panels, kPanelGrain, [&](int64_t begin, int64_t end) {
    RunProductSlice(step, gate, input, rows, begin, end);
    RunProductSlice(step, up, input, rows, begin, end);
    blocks.Finish(begin, end, [&](int64_t from, int64_t to) {
      const Range columns = {
          product.first + from * kPanelRows,
          product.first + std::min<int64_t>(to * kPanelRows, product.gate_proj->out_features)};
      Activate(gated, rows, columns, product.activated, columns);
    });
  });
}

void CpuOps::HeadProducts(StepContext& step, const HeadProduct& product, const LinearInput& input,
                          int32_t rows) {
  const int64_t panels = product.linear->first.panels();
  const int32_t heads = product.heads;
  pool_.Share(heads * panels, kPanelGrain, [&](int64_t from, int64_t to) {
    for (int64_t at = from; at < to;) {
      const int64_t head = at / panels;
      const int64_t end = std::min((head + 1) * panels, to);
      const Linear linear = product.linear->At(static_cast<int32_t>(head));
      kernels::MatmulArgs args = MatmulArgsOf(linear, rows);
      args.x = EveryNthRow(input.For(linear.activation_block()), head, heads);
      args.y = product.y + head * product.y_stride;
      args.y_stride = heads * product.y_stride;
      Multiply(step, linear, args, at - head * panels, end - head * panels);
      at = end;
    }
  });
}

void CpuOps::SplitHeads(StepContext& /*step*/, const SplitQueries& queries, int64_t vectors) {
  const LinearInput& input = queries.quantized;
  ForRows(vectors, input.cols() + queries.cols, [&](int64_t begin, int64_t end) {
    QuantizeRows(input, begin, end, {0, input.cols()});
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(queries.to + i * queries.to_stride, queries.from + i * queries.from_stride,
                  sizeof(float) * static_cast<size_t>(queries.cols));
    }
  });
}

void CpuOps::RotateAndStore(StepContext& step, const HeadRows& heads) {
  kernels::KvAppendArgs append = heads.append;
  append.sequences = step.sequences.data();
  append.num_sequences = static_cast<int32_t>(step.sequences.size());
  const auto norm = [&](const kernels::RmsNormArgs& args, int64_t parts, int64_t begin,
                        int64_t end) {
    if (args.weight != nullptr) kernels_.rms_norm(args, begin * parts, end * parts);
  };
  const int64_t elements = heads.rope_q.x_stride + append.k_stride + append.v_stride;
  ForRows(step.rows, elements, [&](int64_t begin, int64_t end) {
    norm(heads.q_norm, heads.q_parts, begin, end);
    norm(heads.k_norm, heads.k_parts, begin, end);
    kernels_.rope(heads.rope_q, begin, end);
    kernels_.rope(heads.rope_k, begin, end);
    if (!kernels_.kv_append(append, begin, end)) {
      step.finite.store(false, std::memory_order_relaxed);
    }
  });
}

void CpuOps::Gather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
                    const MemberColumns& columns, bool at_first) {
  if (columns.whole() || !step.status.ok()) return;
  DT_CHECK(step.gather != nullptr);
  bool finite = step.finite.load(std::memory_order_relaxed);
  step.status = step.gather->Run(buffers, rows, columns.parts, at_first, &finite);
  if (!finite) step.finite.store(false, std::memory_order_relaxed);
}

std::unique_ptr<Moe> CpuOps::MakeMoe(MoeWeights weights, const model::ExpertConfig& config,
                                     model::Activation activation) {
  return std::make_unique<CpuMoe>(this, std::move(weights), config, activation);
}

}  // namespace dovetail::worker
