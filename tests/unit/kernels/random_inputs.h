// Random inputs for kernel tests: weights of any type as GGUF bytes, activations with extremes, and
// buffers with guard bytes around them.
#ifndef DOVETAIL_TESTS_UNIT_KERNELS_RANDOM_INPUTS_H_
#define DOVETAIL_TESTS_UNIT_KERNELS_RANDOM_INPUTS_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/float_convert.h"
#include "base/weight_type.h"
#include "gtest/gtest.h"

namespace dovetail::kernels::testing {

using Rng = std::mt19937_64;

inline int64_t Uniform(Rng& rng, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(rng);
}

inline float Normal(Rng& rng) { return std::normal_distribution<float>()(rng); }

// Mostly normal numbers; one in sixteen is an extreme that must not upset the arithmetic.
inline float AnyFloat(Rng& rng) {
  switch (Uniform(rng, 0, 47)) {
    case 0:
      return 0.0f;
    case 1:
      return -1e-39f;  // subnormal
    case 2:
      return 1e4f * Normal(rng);
    default:
      return Normal(rng);
  }
}

inline std::vector<float> RandomFloats(Rng& rng, int64_t n) {
  std::vector<float> v(n);
  for (float& f : v) f = AnyFloat(rng);
  return v;
}

inline uint16_t RandomHalf(Rng& rng) {
  float f = 0.02f * Normal(rng);
  if (Uniform(rng, 0, 31) == 0) f = 0.0f;
  if (Uniform(rng, 0, 31) == 0) f = 3e-6f;  // subnormal as a half
  return F32ToF16(f);
}

// Where a block has its d and its dmin (or m), as halves; -1: none.
struct HalfOffsets {
  int d;
  int min;
};

inline HalfOffsets HalvesOf(WeightType type) {
  switch (type) {
    case WeightType::kF16:
    case WeightType::kQ4_0:
    case WeightType::kQ5_0:
    case WeightType::kQ8_0:
    case WeightType::kIQ4_NL:
    case WeightType::kIQ4_XS:
    case WeightType::kIQ1_S:
    case WeightType::kIQ2_XXS:
    case WeightType::kIQ2_XS:
    case WeightType::kIQ2_S:
    case WeightType::kIQ3_XXS:
    case WeightType::kIQ3_S:
      return {0, -1};
    case WeightType::kQ4_1:
    case WeightType::kQ5_1:
    case WeightType::kQ4_K:
    case WeightType::kQ5_K:
      return {0, 2};
    case WeightType::kQ2_K:
      return {80, 82};
    case WeightType::kQ3_K:
      return {108, -1};
    case WeightType::kQ6_K:
      return {208, -1};
    case WeightType::kTQ1_0:
      return {52, -1};
    case WeightType::kTQ2_0:
      return {64, -1};
    default:
      return {-1, -1};
  }
}

// Sets the scales of a block that are not small integers; the rest of it stays.
inline void PutScales(WeightType type, uint16_t d, uint16_t min, uint8_t* block) {
  const HalfOffsets at = HalvesOf(type);
  if (at.d >= 0) std::memcpy(block + at.d, &d, 2);
  if (at.min >= 0) std::memcpy(block + at.min, &min, 2);
  if (type == WeightType::kIQ1_M) {  // a nibble in each of four words
    for (int i = 0; i < 4; ++i) {
      uint8_t& byte = block[48 + 2 * i + 1];
      byte = static_cast<uint8_t>((byte & 15) | (d >> (4 * i) & 15) << 4);
    }
  }
}

// Rows of a matrix [n, k] as GGUF stores them: every byte random, but the scales sane numbers.
inline std::vector<uint8_t> RandomWeights(Rng& rng, WeightType type, int64_t n, int64_t k) {
  const WeightTypeInfo& info = InfoOf(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(n * StoredBytes(type, k)));
  for (size_t i = 0; i < bytes.size(); i += info.block_bytes) {
    uint8_t* block = &bytes[i];
    for (int b = 0; b < info.block_bytes; ++b) block[b] = static_cast<uint8_t>(rng());
    switch (type) {
      case WeightType::kF32: {
        const float f = AnyFloat(rng);
        std::memcpy(block, &f, 4);
        break;
      }
      case WeightType::kBF16: {
        const uint16_t h = F32ToBf16(AnyFloat(rng));
        std::memcpy(block, &h, 2);
        break;
      }
      case WeightType::kMXFP4:  // around 2^-8, and the subnormal exponents
        block[0] = static_cast<uint8_t>(Uniform(rng, 0, 31) == 0 ? Uniform(rng, 0, 2)
                                                                 : Uniform(rng, 114, 124));
        break;
      case WeightType::kNVFP4:  // any byte is a number
        break;
      default: {
        const uint16_t d = RandomHalf(rng);
        PutScales(type, d, RandomHalf(rng), block);
      }
    }
  }
  return bytes;
}

// A buffer of `size` elements, 64-byte aligned, between guards that Check finds broken.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : size_(size), bytes_(size * sizeof(T) + 3 * kGuard, kFill) {
    const auto at = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    offset_ = (at + 63) / 64 * 64 - reinterpret_cast<uintptr_t>(bytes_.data());
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + offset_); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + offset_); }
  T& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return size_; }

  void ExpectGuardsIntact() const {
    const size_t end = offset_ + size_ * sizeof(T);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (i >= offset_ && i < end) continue;
      ASSERT_EQ(bytes_[i], kFill) << "guard byte " << static_cast<int64_t>(i - offset_) << " of "
                                  << size_ * sizeof(T);
    }
  }

 private:
  static constexpr size_t kGuard = 128;
  static constexpr uint8_t kFill = 0xab;
  int64_t size_;
  std::vector<uint8_t> bytes_;
  size_t offset_;
};

// Equal bit for bit; any NaN equals any NaN.
inline bool SameBits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

inline void ExpectSameBits(const float* expected, const float* actual, int64_t n,
                           const std::string& what) {
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_TRUE(SameBits(expected[i], actual[i]))
        << what << ": element " << i << " of " << n << ": expected " << expected[i] << ", got "
        << actual[i];
  }
}

// Calls fn(begin, end) for random contiguous slices that cover [0, total).
template <typename Fn>
void ForRandomSlices(Rng& rng, int64_t total, const Fn& fn) {
  for (int64_t begin = 0; begin < total;) {
    const int64_t end = begin + Uniform(rng, 1, total - begin);
    fn(begin, end);
    begin = end;
  }
}

}  // namespace dovetail::kernels::testing

#endif  // DOVETAIL_TESTS_UNIT_KERNELS_RANDOM_INPUTS_H_
