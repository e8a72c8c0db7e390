// The main function of tests of workers on a GPU, and that GPU. Exits with 77 where there is none.
#include <cstdio>
#include <cstdlib>

#include "gtest/gtest.h"
#include "tests/testing/gpu_device.h"
#include "worker/device/cuda_device.h"

namespace dovetail::testing {

std::unique_ptr<worker::Device> MakeGpu(uint64_t /*seed*/) {
  auto device = worker::OpenCudaDevice(0);
  if (device.ok()) return *std::move(device);
  std::fprintf(stderr, "%s\n", device.status().ToString().c_str());
  std::abort();
}

}  // namespace dovetail::testing

int main(int argc, char** argv) {
  constexpr int kNoDevice = 77;
  ::testing::InitGoogleTest(&argc, argv);
  const auto device = dovetail::worker::OpenCudaDevice(0);
  if (!device.ok()) {
    std::printf("skipped: %s\n", std::string(device.status().message()).c_str());
    return kNoDevice;
  }
  return RUN_ALL_TESTS();
}
