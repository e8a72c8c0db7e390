// Those words of device.h that blocks of weights are read with (formats.inl.h), as g++ has them:
// for the shim, and for processors that read one row of P16 (kernels/cpu/embedding.cc).
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_BYTES_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_BYTES_H_

#include <bit>
#include <cstdint>

#include "base/float_convert.h"
#include "kernels/quant/codebooks.h"

#define DT_DEVICE static inline
#define DT_DEVICE_MEMBER static inline

namespace dovetail::kernels::cuda {

DT_DEVICE uint32_t BitsOf(float v) { return std::bit_cast<uint32_t>(v); }
DT_DEVICE float FloatOf(uint32_t v) { return std::bit_cast<float>(v); }
DT_DEVICE float HalfToFloat(uint16_t v) { return F16ToF32(v); }
DT_DEVICE uint16_t FloatToHalf(float v) { return F32ToF16(v); }

// Byte i of the result: the byte of {b, a} (b the upper four) that nibble i of `select` names.
DT_DEVICE uint32_t BytePermute(uint32_t a, uint32_t b, uint32_t select) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const int from = static_cast<int>(select >> (4 * i) & 7);
    result |= static_cast<uint32_t>(bytes >> (8 * from) & 0xff) << (8 * i);
  }
  return result;
}
// a - b in each byte.
DT_DEVICE uint32_t SubtractBytes(uint32_t a, uint32_t b) {
  uint32_t result = 0;
  for (int i = 0; i < 32; i += 8) result |= (((a >> i) - (b >> i)) & 0xff) << i;
  return result;
}

DT_DEVICE const Codebooks& DeviceCodebooks() { return kCodebooks; }

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_BYTES_H_
