// Products with, and rows of, weights of blocks of 32 and 16: the unit that is compiled once by
// nvcc and once by g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_small.inl.h"
//
#include "kernels/cuda/embedding.inl.h"
//
#include "kernels/cuda/matmul.inl.h"
//
#include "kernels/cuda/matmul_few.inl.h"
//
#include "kernels/cuda/matmul_tile.inl.h"
//
#include "kernels/cuda/launch_matmul.inl.h"

// Calls run.template operator()<Format>() with the format of a type; false: it is not of this unit.
template <typename Run>
bool WithSmallFormat(WeightType type, const Run& run) {
  switch (type) {
    case WeightType::kQ4_0:
      run.template operator()<FormatQ4_0>();
      return true;
    case WeightType::kQ4_1:
      run.template operator()<FormatQ4_1>();
      return true;
    case WeightType::kQ5_0:
      run.template operator()<FormatQ5_0>();
      return true;
    case WeightType::kQ5_1:
      run.template operator()<FormatQ5_1>();
      return true;
    case WeightType::kQ8_0:
      run.template operator()<FormatQ8_0>();
      return true;
    case WeightType::kIQ4_NL:
      run.template operator()<FormatIQ4_NL>();
      return true;
    case WeightType::kMXFP4:
      run.template operator()<FormatMXFP4>();
      return true;
    case WeightType::kNVFP4:
      run.template operator()<FormatNVFP4>();
      return true;
    default:
      return false;
  }
}

}  // namespace

bool MatmulSmallBlocks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithSmallFormat(
      args.type, [&]<typename Format>() { QuantProduct<Format>(args, begin, end, stream); });
}

bool EmbedSmallBlocks(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithSmallFormat(args.type,
                         [&]<typename Format>() { EmbedRows<Format>(args, begin, end, stream); });
}

}  // namespace dovetail::kernels::cuda
