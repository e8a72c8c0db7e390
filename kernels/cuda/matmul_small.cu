// Products with weights of blocks of 32 and 16: the unit that is compiled once by nvcc and once by
// g++.
#include "kernels/cuda/unit.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/formats.inl.h"
//
#include "kernels/cuda/formats_small.inl.h"
//
#include "kernels/cuda/matmul.inl.h"
//
#include "kernels/cuda/launch_matmul.inl.h"

}  // namespace

bool MatmulSmallBlocks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  switch (args.type) {
    case WeightType::kQ4_0:
      QuantProduct<FormatQ4_0>(args, begin, end, stream);
      return true;
    case WeightType::kQ4_1:
      QuantProduct<FormatQ4_1>(args, begin, end, stream);
      return true;
    case WeightType::kQ5_0:
      QuantProduct<FormatQ5_0>(args, begin, end, stream);
      return true;
    case WeightType::kQ5_1:
      QuantProduct<FormatQ5_1>(args, begin, end, stream);
      return true;
    case WeightType::kQ8_0:
      QuantProduct<FormatQ8_0>(args, begin, end, stream);
      return true;
    case WeightType::kIQ4_NL:
      QuantProduct<FormatIQ4_NL>(args, begin, end, stream);
      return true;
    case WeightType::kMXFP4:
      QuantProduct<FormatMXFP4>(args, begin, end, stream);
      return true;
    case WeightType::kNVFP4:
      QuantProduct<FormatNVFP4>(args, begin, end, stream);
      return true;
    default:
      return false;
  }
}

}  // namespace dovetail::kernels::cuda
