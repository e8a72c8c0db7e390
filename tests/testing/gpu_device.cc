#include "tests/testing/gpu_device.h"

#include "worker/device/simt_device.h"

namespace dovetail::testing {

std::unique_ptr<worker::Device> MakeGpu(uint64_t seed) {
  return std::make_unique<worker::SimtDevice>(seed);
}

}  // namespace dovetail::testing
