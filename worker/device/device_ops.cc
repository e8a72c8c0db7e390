#include "worker/device/device_ops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "worker/device/device_moe.h"
#include "worker/layers/attention_tasks.h"

namespace dovetail::worker {
namespace {

// Splits of a context from which on, and tasks up to which, contexts are shared between blocks.
constexpr int64_t kSharedSplits = 2;
constexpr int64_t kFewTasks = 256;

// The block of the one quantised form of an input; 0: it has none, or several.
int32_t OnlyBlock(const LinearInput& input) {
  int32_t only = 0, forms = 0;
  input.ForEachBlock([&](int32_t block) {
    only = block;
    ++forms;
  });
  return forms == 1 ? only : 0;
}

struct GatedKernels {
  decltype(kernels::DeviceTable::silu_mul) alone;
  decltype(kernels::DeviceTable::silu_mul_quantize) quantize;
};
GatedKernels KernelsOf(const kernels::DeviceTable& kernels, model::Activation activation) {
  switch (activation) {
    case model::Activation::kSilu:
      return {kernels.silu_mul, kernels.silu_mul_quantize};
    case model::Activation::kGelu:
      return {kernels.gelu_mul, kernels.gelu_mul_quantize};
    case model::Activation::kSwigluOai:
      return {kernels.swiglu_oai, kernels.swiglu_oai_quantize};
  }
  DT_CHECK(false);
}

// Whether one launch can make both. Of floats each is one of its own.
bool CanBeBeside(const kernels::MatmulArgs& args, const Product& product) {
  return product.linear->type == args.type && args.x.block != 0 && !args.accumulate &&
         !product.accumulate;
}

}  // namespace

int32_t* DeviceOps::FlagOf(const StepContext& step) const {
  return ws_.tables.flags + step.op_numbers[step.part];
}

void DeviceOps::Embed(StepContext& step, const kernels::EmbeddingArgs& args, bool in_head) {
  if (in_head) {
    kernels::EmbeddingArgs there = args;
    there.tokens = ws_.tables.tokens;
    kernels_.embedding(there, 0, step.rows, stream());
    kernels_.check_finite(args.y, args.y_stride, step.rows, args.cols, FlagOf(step), stream());
    return;
  }
  kernels::EmbeddingArgs on_host = args;
  on_host.y = staging_->rows.x;
  const int64_t cols = args.cols;
  pool_.Share(step.rows, 1, [&](int64_t begin, int64_t end) {
    host_kernels_.embedding(on_host, begin, end);
    if (!host_kernels_.all_finite(on_host.y + begin * cols, (end - begin) * cols)) {
      step.finite.store(false, std::memory_order_relaxed);
    }
  });
  up_.Add(args.y, on_host.y, step.rows * cols);
}

void DeviceOps::FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                               float* cos_sin) {
  float* const on_host = cos_sin == ws_.cos_sin ? staging_->cos_sin : staging_->cos_sin_local;
  pool_.Share(step.rows, 1, [&](int64_t begin, int64_t end) {
    FillAngles(step.sequences, inv_freq, factor, begin, end, on_host);
  });
  up_.Add(cos_sin, on_host, step.rows * 2 * static_cast<int64_t>(inv_freq.size()));
}

void DeviceOps::QuantizeRows(const LinearInput& input, int64_t rows, const Range& columns) {
  input.ForEachBlock(
      [&](int32_t block) { kernels_.quantize({input.For(block, columns)}, 0, rows, stream()); });
}

void DeviceOps::NormAndQuantize(StepContext& /*step*/, const RmsNorm& norm, const float* x,
                                float* y, const LinearInput& input, int64_t rows) {
  if (const int32_t block = OnlyBlock(input); block != 0) {
    const kernels::Activations form = input.For(block);
    return kernels_.rms_norm_quantize(norm.Args(x, y), form, 0, rows, stream());
  }
  kernels_.rms_norm(norm.Args(x, y), 0, rows, stream());
  QuantizeRows(input, rows, {0, input.cols()});
}

void DeviceOps::AddNormed(StepContext& step, const RmsNorm& norm, const float* y) {
  kernels::RmsNormArgs args = norm.Args(y, step.x);
  args.accumulate = true;
  kernels_.rms_norm(args, 0, step.x_rows, stream());
  kernels_.check_finite(step.x, norm.cols, step.x_rows, norm.cols, FlagOf(step), stream());
}

void DeviceOps::TakeLogitRows(StepContext& step, const RmsNorm& norm) {
  const int64_t cols = norm.cols;
  const auto rows = static_cast<int64_t>(step.logit_rows.size());
  kernels_.copy_rows({.from = step.x,
                      .from_stride = cols,
                      .index = ws_.tables.rows,
                      .to = ws_.logit_rows,
                      .to_stride = cols,
                      .cols = norm.cols},
                     0, rows, stream());
  // What is no longer needed of x is written over.
  kernels_.rms_norm(norm.Args(ws_.logit_rows, step.x), 0, rows, stream());
  kernels_.check_finite(step.x, cols, rows, cols, FlagOf(step), stream());
}

void DeviceOps::Quantize(StepContext& /*step*/, const LinearInput& input, int64_t rows,
                         const Range& columns) {
  QuantizeRows(input, rows, columns);
}

void DeviceOps::Products(StepContext& step, absl::Span<const Product> products,
                         const LinearInput& input, int32_t rows, bool check_finite) {
  while (!products.empty()) {
    const Linear& linear = *products[0].linear;
    kernels::DeviceMatmulArgs args;
    static_cast<kernels::MatmulArgs&>(args) = MatmulArgsOf(linear, rows);
    args.x = input.For(linear.activation_block());
    args.y = products[0].y;
    args.y_stride = products[0].stride();
    args.accumulate = products[0].accumulate;
    args.not_finite = check_finite ? FlagOf(step) : nullptr;
    products.remove_prefix(1);
    while (!products.empty() && args.num_beside < args.kMostBeside &&
           CanBeBeside(args, products[0])) {
      const Linear& next = *products[0].linear;
      args.beside[args.num_beside++] = {next.weight,          next.out_features, products[0].y,
                                        products[0].stride(), next.bias,         next.scale};
      products.remove_prefix(1);
    }
    kernels_.matmul(args, 0, linear.panels(), stream());
  }
}

void DeviceOps::RunGated(model::Activation activation, float* gate, const float* up, int32_t cols,
                         int64_t rows, const Range& columns, const LinearInput& activated) {
  const kernels::GatedArgs args = {.gate = gate + columns.begin,
                                   .up = up + columns.begin,
                                   .in_stride = cols,
                                   .y = gate + columns.begin,
                                   .y_stride = cols,
                                   .cols = static_cast<int32_t>(columns.end - columns.begin)};
  const GatedKernels run = KernelsOf(kernels_, activation);
  if (const int32_t block = OnlyBlock(activated); block != 0) {
    return run.quantize(args, activated.For(block, columns), 0, rows, stream());
  }
  run.alone(args, 0, rows, stream());
  QuantizeRows(activated, rows, columns);
}

void DeviceOps::GatedProducts(StepContext& step, const GatedProduct& product,
                              const LinearInput& input, int32_t rows) {
  const int32_t first = product.first, past = first + product.gate_proj->out_features;
  Products(step,
           {{product.gate_proj, product.gate + first, false, product.cols},
            {product.up_proj, product.up + first, false, product.cols}},
           input, rows, /*check_finite=*/false);
  RunGated(product.activation, product.gate, product.up, product.cols, rows, {first, past},
           product.activated);
}

void DeviceOps::HeadProducts(StepContext& /*step*/, const HeadProduct& product,
                             const LinearInput& input, int32_t rows) {
  const ExpertLinear& linear = *product.linear;
  kernels::DeviceMatmulArgs args;
  static_cast<kernels::MatmulArgs&>(args) = MatmulArgsOf(linear.first, rows);
  args.w_stride = linear.stride;
  args.bias_stride = linear.bias_stride;
  args.scales = linear.scales;
  args.heads = product.heads;
  args.x = input.For(linear.first.activation_block());
  for (int64_t* stride :
       {&args.x.f32_stride, &args.x.q_stride, &args.x.d_stride, &args.x.bsum_stride}) {
    *stride *= product.heads;
  }
  args.y = product.y;
  args.y_head_stride = product.y_stride;
  args.y_stride = product.heads * product.y_stride;
  kernels_.matmul(args, 0, linear.first.panels(), stream());
}

void DeviceOps::SplitHeads(StepContext& /*step*/, const SplitQueries& queries, int64_t vectors) {
  QuantizeRows(queries.quantized, vectors, {0, queries.quantized.cols()});
  kernels_.copy_rows({.from = queries.from,
                      .from_stride = queries.from_stride,
                      .index = nullptr,
                      .to = queries.to,
                      .to_stride = queries.to_stride,
                      .cols = static_cast<int32_t>(queries.cols)},
                     0, vectors, stream());
}

absl::Span<const kernels::SequenceRows> DeviceOps::SequencesOnDevice(
    const StepContext& step) const {
  return {ws_.tables.sequences, step.sequences.size()};
}

void DeviceOps::RotateAndStore(StepContext& step, const HeadRows& heads) {
  const auto norm = [&](const kernels::RmsNormArgs& args, int64_t parts) {
    if (args.weight != nullptr) kernels_.rms_norm(args, 0, step.rows * parts, stream());
  };
  norm(heads.q_norm, heads.q_parts);
  norm(heads.k_norm, heads.k_parts);
  kernels::KvAppendArgs append = heads.append;
  append.sequences = SequencesOnDevice(step).data();
  append.num_sequences = static_cast<int32_t>(step.sequences.size());
  kernels_.rope_append(heads.rope_q, heads.rope_k, append, 0, step.rows, FlagOf(step), stream());
}

int64_t DeviceOps::SplitsOf(const StepContext& step, int64_t first, int64_t end) {
  int64_t keys = 0;
  for (const kernels::SequenceRows& s : step.sequences) {
    if (s.row_begin >= end || s.row_begin + s.num_rows <= first) continue;
    keys = std::max(keys, int64_t{s.position} + s.num_rows);
  }
  return (keys + kKvSplitTokens - 1) / kKvSplitTokens;
}

void DeviceOps::Attend(StepContext& step, kernels::AttentionArgs args, int64_t first, int64_t end) {
  args.sequences = SequencesOnDevice(step).data();
  args.num_sequences = static_cast<int32_t>(step.sequences.size());
  args.first_row = first;
  args.heads_per_task = HeadsPerTask(args);
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t splits = fixed_splits_ > 0 ? fixed_splits_ : SplitsOf(step, first, end);
  if (splits < kSharedSplits || (end - first) * groups > kFewTasks) {
    return kernels_.attention(args, first * groups, end * groups, stream());
  }
  args.parts = ws_.attn_parts;
  args.part_splits = splits;
  // As many rows as there is room for the parts of, which is one at least.
  const int64_t row_floats = args.num_heads * splits * kernels::AttentionPartFloats(args.kv.shape);
  const int64_t rows_at_once = ws_.attn_parts_floats / row_floats;
  DT_CHECK_GE(rows_at_once, 1);
  for (int64_t row = first; row < end; row += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, end - row);
    args.first_row = row;
    kernels_.attention_parts(args, row * groups, (row + rows) * groups, 0, splits, stream());
    kernels_.attention_merge(args, row * groups, (row + rows) * groups, stream());
    args.q += rows * args.q_stride;
    args.out += rows * args.out_stride;
  }
}

// By way of the host, which has the rings.
void DeviceOps::Gather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
                       const MemberColumns& columns, bool at_first) {
  if (columns.whole() || !step.status.ok()) return;
  DT_CHECK(step.gather != nullptr);
  std::array<GatheredBuffer, kMaxGatheredBuffers> on_host;
  int64_t bytes = 0;
  for (size_t i = 0; i < buffers.size(); ++i) {
    on_host[i] = buffers[i];
    on_host[i].data = staging_->gather + bytes;
    bytes += (rows * buffers[i].row_bytes + 63) / 64 * 64;
    DT_CHECK_LE(bytes, staging_->gather_bytes);
    DownloadArray(on_host[i].data, buffers[i].data, rows * buffers[i].row_bytes);
  }
  const DeviceTables& tables = staging_->tables;
  DownloadArray(tables.flags, ws_.tables.flags, tables.num_flags);
  step.status = device_.Wait();
  if (!step.status.ok()) return;
  bool finite = step.finite.load(std::memory_order_relaxed) &&
                std::all_of(tables.flags, tables.flags + tables.num_flags,
                            [](int32_t flag) { return flag == 0; });
  step.status =
      step.gather->Run({on_host.data(), buffers.size()}, rows, columns.parts, at_first, &finite);
  if (!finite) step.finite.store(false, std::memory_order_relaxed);
  if (at_first && columns.member != 0) return;
  for (size_t i = 0; i < buffers.size(); ++i) {
    UploadArray(buffers[i].data, on_host[i].data, rows * buffers[i].row_bytes);
  }
}

std::unique_ptr<Moe> DeviceOps::MakeMoe(MoeWeights weights, const model::ExpertConfig& config,
                                        model::Activation activation) {
  int32_t* places = nullptr;
  if (!weights.experts.empty()) {
    places = ws_.tables.places + int64_t{num_places_} * config.count;
    ++num_places_;
    UploadArray(places, weights.place_of.data(), config.count);
  }
  return std::make_unique<DeviceMoe>(this, places, std::move(weights), config, activation);
}

void DeviceOps::CopyBlocks(absl::Span<const KvRegion> regions,
                           absl::Span<const transport::BlockCopy> copies) {
  for (const KvRegion& region : regions) {
    for (const transport::BlockCopy& copy : copies) {
      device_.Copy(region.data + copy.to * region.block_bytes,
                   region.data + copy.from * region.block_bytes, region.block_bytes);
    }
  }
}

}  // namespace dovetail::worker
