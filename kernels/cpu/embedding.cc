// Rows of an embedding in P16. A row is one lane of its panel's blocks, which no vector unit has
// use for: it is read as a GPU's threads read it, by their formats.
#include <cstdint>
#include <cstring>

#include "base/packed_layout.h"
#include "kernels/cpu/p16.h"
#include "kernels/cuda/device_bytes.h"
#include "kernels/ops.h"
#include "kernels/quant/codebooks.h"
#include "kernels/quant/values.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels {
namespace {

using cuda::BytePermute;
using cuda::DeviceCodebooks;
using cuda::FloatOf;
using cuda::HalfToFloat;
using cuda::SubtractBytes;

template <typename V>
V LoadVector(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_small.inl.h"
//
#include "kernels/cuda/formats_k.inl.h"
//
#include "kernels/cuda/formats_codebook.inl.h"
//
#include "kernels/cpu/formats.inl.h"

template <typename Format>
void DequantizeLane(const uint8_t* panel, int lane, int32_t cols, float* y) {
  for (int32_t k = 0; k < cols; k += Format::kBlock, panel += Format::P16::kBytes) {
    for (int at = 0; at < Format::kBlock; at += 4) {
      DequantizeQuad<Format>(panel, at, lane, y + k + at);
    }
  }
}

}  // namespace

void EmbedP16(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  if (IsFloat(args.type)) return ref::Embedding(args, begin, end);
  const int64_t panel_bytes = P16PanelBytes(args.type, args.cols);
  WithFormat(args.type, [&]<typename Format>() {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t token = args.tokens[row];
      float* const y = args.y + row * args.y_stride;
      DequantizeLane<Format>(args.table + token / kPanelRows * panel_bytes, token % kPanelRows,
                             args.cols, y);
      if (args.scale == 1.0f) continue;
      for (int i = 0; i < args.cols; ++i) y[i] *= args.scale;
    }
  });
}

}  // namespace dovetail::kernels
