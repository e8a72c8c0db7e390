// MakeSliceTable: GPU kernels as a CPU's KernelTable, so that what tests CPU kernels tests them.
//
// A slice is a launch that is waited for. What a GPU worker leaves to its host (rows of the file,
// sampling) is the reference's.
#ifndef DOVETAIL_KERNELS_CUDA_SLICE_TABLE_H_
#define DOVETAIL_KERNELS_CUDA_SLICE_TABLE_H_

#include <algorithm>
#include <cstdint>

#include "base/packed_layout.h"
#include "kernels/cpu/p16.h"
#include "kernels/cuda/device_table.h"
#include "kernels/ref/ref.h"
#include "kernels/table.h"

namespace dovetail::kernels::cuda {

// Device: static const DeviceTable& Table(); static void Run(fn), which calls fn(stream) and
// returns when what that has started is done.
template <typename Device>
struct Slices {
  template <auto kOp, typename Args>
  static void Slice(const Args& args, int64_t begin, int64_t end) {
    Device::Run([&](void* stream) { (Device::Table().*kOp)(args, begin, end, stream); });
  }
  static void Pack(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
                   int64_t row_end, uint8_t* dst) {
    if (IsFloat(type)) return PackP16(type, src, n, k, row_begin, row_end, dst);
    const PackArgs args = {.type = type,
                           .rows = src + row_begin * StoredBytes(type, k),
                           .n = std::min(row_end, n) - row_begin,
                           .k = k,
                           .packed = dst + row_begin / kPanelRows * P16PanelBytes(type, k)};
    Device::Run([&](void* stream) { Device::Table().pack(args, stream); });
  }
  static void Matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
    DeviceMatmulArgs device;
    static_cast<MatmulArgs&>(device) = args;
    Device::Run([&](void* stream) { Device::Table().matmul(device, begin, end, stream); });
  }
  static void Sigmoid(const float* x, float* y, int64_t n) {
    Device::Run([&](void* stream) { Device::Table().sigmoid(x, y, n, stream); });
  }
  static bool KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end) {
    int32_t flag = 0;
    Device::Run([&](void* stream) { Device::Table().kv_append(args, begin, end, &flag, stream); });
    return flag == 0;
  }
  static void AttentionParts(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end) {
    Device::Run([&](void* stream) {
      Device::Table().attention_parts(args, task, task + 1, begin, end, stream);
    });
  }
  static bool AllFinite(const float* x, int64_t n) {
    int32_t flag = 0;
    Device::Run([&](void* stream) { Device::Table().check_finite(x, n, 1, n, &flag, stream); });
    return flag == 0;
  }
};

template <typename Device>
KernelTable MakeSliceTable() {
  using S = Slices<Device>;
  return {
      .name = Device::Table().name,
      .isa = Isa::kAvx512,  // not the reference: tests have their full set of cases
      .layout = PackedLayout::kP16,
      .pack = S::Pack,
      .rms_norm = S::template Slice<&DeviceTable::rms_norm, RmsNormArgs>,
      .quantize = S::template Slice<&DeviceTable::quantize, QuantizeArgs>,
      .matmul = S::Matmul,
      .silu_mul = S::template Slice<&DeviceTable::silu_mul, GatedArgs>,
      .gelu_mul = S::template Slice<&DeviceTable::gelu_mul, GatedArgs>,
      .swiglu_oai = S::template Slice<&DeviceTable::swiglu_oai, GatedArgs>,
      .sigmoid = S::Sigmoid,
      .combine = S::template Slice<&DeviceTable::combine, CombineArgs>,
      .rope = S::template Slice<&DeviceTable::rope, RopeArgs>,
      .kv_append = S::KvAppend,
      .attention = S::template Slice<&DeviceTable::attention, AttentionArgs>,
      .attention_parts = S::AttentionParts,
      .attention_merge = S::template Slice<&DeviceTable::attention_merge, AttentionArgs>,
      .embedding = ref::Embedding,
      .packed_embedding = S::template Slice<&DeviceTable::embedding, EmbeddingArgs>,
      .softmax = ref::Softmax,
      .argmax = ref::ArgMax,
      .all_finite = S::AllFinite,
      .read_stream = ref::ReadStream,
  };
}

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_SLICE_TABLE_H_
