// The GPU kernels that a test runs, and how: over the SIMT shim, or on a GPU where the test is
// built for one (tests/gpu), which then reads and writes the test's own memory.
#ifndef DOVETAIL_TESTS_TESTING_DEVICE_UNDER_TEST_H_
#define DOVETAIL_TESTS_TESTING_DEVICE_UNDER_TEST_H_

#include <functional>

#include "kernels/cuda/device_table.h"

namespace dovetail::kernels::testing {

const DeviceTable& DeviceUnderTest();

// Calls fn(stream) and returns when what it has started is done. A failure aborts.
void RunOnDevice(const std::function<void(void* stream)>& fn);

}  // namespace dovetail::kernels::testing

#endif  // DOVETAIL_TESTS_TESTING_DEVICE_UNDER_TEST_H_
