// DeviceTable: how each op is started on a GPU, by one function pointer per op; the only header
// that callers of GPU kernels need.
//
// Two tables have the same kernels: nvcc's, for a GPU, and g++'s over the SIMT shim (kernels/simt).
// Arguments are those of CPU kernels (kernels/ops.h) with addresses that the device can read, for
// units [begin, end); weights lie in P16. Calls only enqueue: `stream` is a cudaStream_t, or a
// simt::Stream*. Results are the bits of kernels/ref. Constants, thread-safe.
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_

#include <cstdint>

#include "kernels/ops.h"

namespace dovetail::kernels {

struct DeviceTable {
  const char* name;  // "cuda", "simt"

  void (*rms_norm)(const RmsNormArgs& args, int64_t begin, int64_t end, void* stream);
  void (*quantize)(const QuantizeArgs& args, int64_t begin, int64_t end, void* stream);
  void (*matmul)(const MatmulArgs& args, int64_t begin, int64_t end, void* stream);
  void (*silu_mul)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*gelu_mul)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*swiglu_oai)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*sigmoid)(const float* x, float* y, int64_t n, void* stream);
  void (*combine)(const CombineArgs& args, int64_t begin, int64_t end, void* stream);
  void (*rope)(const RopeArgs& args, int64_t begin, int64_t end, void* stream);
  // *flag, on the device, is raised to 1 where something stored is not finite.
  void (*kv_append)(const KvAppendArgs& args, int64_t begin, int64_t end, int32_t* flag,
                    void* stream);
  // args.scratch is not used.
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end, void* stream);
  void (*attention_parts)(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end,
                          void* stream);
  void (*attention_merge)(const AttentionArgs& args, int64_t begin, int64_t end, void* stream);
  // *flag is raised where one of x[0 .. n) is not finite.
  void (*check_finite)(const float* x, int64_t n, int32_t* flag, void* stream);
};

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_
