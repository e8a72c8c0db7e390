// Products with, and rows of, weights of blocks of 256 without codebooks: the unit that is compiled
// once by nvcc and once by g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_k.inl.h"
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
bool WithKFormat(WeightType type, const Run& run) {
  switch (type) {
    case WeightType::kQ2_K:
      run.template operator()<FormatQ2_K>();
      return true;
    case WeightType::kQ3_K:
      run.template operator()<FormatQ3_K>();
      return true;
    case WeightType::kQ4_K:
      run.template operator()<FormatQ4_K>();
      return true;
    case WeightType::kQ5_K:
      run.template operator()<FormatQ5_K>();
      return true;
    case WeightType::kQ6_K:
      run.template operator()<FormatQ6_K>();
      return true;
    case WeightType::kIQ4_XS:
      run.template operator()<FormatIQ4_XS>();
      return true;
    case WeightType::kTQ1_0:
    case WeightType::kTQ2_0:
      run.template operator()<FormatTQ>();
      return true;
    default:
      return false;
  }
}

}  // namespace

bool MatmulKTypes(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithKFormat(args.type,
                     [&]<typename Format>() { QuantProduct<Format>(args, begin, end, stream); });
}

bool EmbedKTypes(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithKFormat(args.type,
                     [&]<typename Format>() { EmbedRows<Format>(args, begin, end, stream); });
}

}  // namespace dovetail::kernels::cuda
