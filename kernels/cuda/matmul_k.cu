// Products with weights of blocks of 256 without codebooks: the unit that is compiled once by nvcc
// and once by g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_k.inl.h"
//
#include "kernels/cuda/matmul.inl.h"
//
#include "kernels/cuda/launch_matmul.inl.h"

}  // namespace

bool MatmulKTypes(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  switch (args.type) {
    case WeightType::kQ2_K:
      QuantProduct<FormatQ2_K>(args, begin, end, stream);
      return true;
    case WeightType::kQ3_K:
      QuantProduct<FormatQ3_K>(args, begin, end, stream);
      return true;
    case WeightType::kQ4_K:
      QuantProduct<FormatQ4_K>(args, begin, end, stream);
      return true;
    case WeightType::kQ5_K:
      QuantProduct<FormatQ5_K>(args, begin, end, stream);
      return true;
    case WeightType::kQ6_K:
      QuantProduct<FormatQ6_K>(args, begin, end, stream);
      return true;
    case WeightType::kIQ4_XS:
      QuantProduct<FormatIQ4_XS>(args, begin, end, stream);
      return true;
    case WeightType::kTQ1_0:
    case WeightType::kTQ2_0:
      QuantProduct<FormatTQ>(args, begin, end, stream);
      return true;
    default:
      return false;
  }
}

}  // namespace dovetail::kernels::cuda
