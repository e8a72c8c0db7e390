// Products with weights of codebooks: the unit that is compiled once by nvcc and once by g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_k.inl.h"
//
#include "kernels/cuda/formats_codebook.inl.h"
//
#include "kernels/cuda/matmul.inl.h"
//
#include "kernels/cuda/launch_matmul.inl.h"

}  // namespace

bool MatmulCodebooks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  switch (args.type) {
    case WeightType::kIQ1_S:
      QuantProduct<FormatIQ1_S>(args, begin, end, stream);
      return true;
    case WeightType::kIQ1_M:
      QuantProduct<FormatIQ1_M>(args, begin, end, stream);
      return true;
    case WeightType::kIQ2_XXS:
      QuantProduct<FormatIQ2_XXS>(args, begin, end, stream);
      return true;
    case WeightType::kIQ2_XS:
      QuantProduct<FormatIQ2_XS>(args, begin, end, stream);
      return true;
    case WeightType::kIQ2_S:
      QuantProduct<FormatIQ2_S>(args, begin, end, stream);
      return true;
    case WeightType::kIQ3_XXS:
      QuantProduct<FormatIQ3_XXS>(args, begin, end, stream);
      return true;
    case WeightType::kIQ3_S:
      QuantProduct<FormatIQ3_S>(args, begin, end, stream);
      return true;
    default:
      return false;
  }
}

}  // namespace dovetail::kernels::cuda
