// TablesUnderTest() of kernel tests on a GPU: the GPU's kernels, a launch and a wait for each
// slice; and DeviceUnderTest().
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/cuda_table.h"
#include "kernels/cuda/slice_table.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/kernel_tables.h"

namespace dovetail::kernels::testing {
namespace {

struct Gpu {
  static const DeviceTable& Table() { return CudaTable(); }

  template <typename Fn>
  static void Run(const Fn& launch) {
    launch(nullptr);
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "a kernel: %s\n", cudaGetErrorString(error));
    std::abort();
  }
};

}  // namespace

std::vector<const KernelTable*> TablesUnderTest() {
  static const KernelTable table = cuda::MakeSliceTable<Gpu>();
  return {&table};
}

std::vector<const KernelTable*> ProductTablesUnderTest() { return TablesUnderTest(); }
std::vector<const KernelTable*> AttentionTablesUnderTest() { return TablesUnderTest(); }
bool ReadsKvByPart(const KernelTable& /*table*/) { return false; }

const DeviceTable& DeviceUnderTest() { return CudaTable(); }

void RunOnDevice(const std::function<void(void* stream)>& fn) { Gpu::Run(fn); }

}  // namespace dovetail::kernels::testing
