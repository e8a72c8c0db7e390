// The GPU that tests of workers compute on: the SIMT shim, or a real one where the test is built
// for it (tests/gpu).
#ifndef DOVETAIL_TESTS_TESTING_GPU_DEVICE_H_
#define DOVETAIL_TESTS_TESTING_GPU_DEVICE_H_

#include <cstdint>
#include <memory>

#include "worker/device/device.h"

namespace dovetail::testing {

// `seed`: of the order in which the shim runs threads.
std::unique_ptr<worker::Device> MakeGpu(uint64_t seed);

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_GPU_DEVICE_H_
