// Products with, and rows of, weights of codebooks: the unit that is compiled once by nvcc and once
// by g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_k.inl.h"
//
#include "kernels/cuda/formats_codebook.inl.h"
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
bool WithCodebookFormat(WeightType type, const Run& run) {
  switch (type) {
    case WeightType::kIQ1_S:
      run.template operator()<FormatIQ1_S>();
      return true;
    case WeightType::kIQ1_M:
      run.template operator()<FormatIQ1_M>();
      return true;
    case WeightType::kIQ2_XXS:
      run.template operator()<FormatIQ2_XXS>();
      return true;
    case WeightType::kIQ2_XS:
      run.template operator()<FormatIQ2_XS>();
      return true;
    case WeightType::kIQ2_S:
      run.template operator()<FormatIQ2_S>();
      return true;
    case WeightType::kIQ3_XXS:
      run.template operator()<FormatIQ3_XXS>();
      return true;
    case WeightType::kIQ3_S:
      run.template operator()<FormatIQ3_S>();
      return true;
    default:
      return false;
  }
}

}  // namespace

bool MatmulCodebooks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithCodebookFormat(
      args.type, [&]<typename Format>() { QuantProduct<Format>(args, begin, end, stream); });
}

bool EmbedCodebooks(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  return WithCodebookFormat(
      args.type, [&]<typename Format>() { EmbedRows<Format>(args, begin, end, stream); });
}

}  // namespace dovetail::kernels::cuda
