#include "kernels/simt/table.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/slice_table.h"
#include "kernels/simt/simt.h"

namespace dovetail::simt {
namespace {

template <int kCapability>
struct Shim {
  static const kernels::DeviceTable& Table() { return LaunchTable(); }

  // Each launch has a seed of its own; a finding aborts.
  template <typename Fn>
  static void Run(const Fn& launch) {
    static std::atomic<uint64_t> seeds{0};
    Stream stream;
    stream.capability = kCapability;
    stream.seed = seeds.fetch_add(1) + 1;
    launch(&stream);
    if (stream.status.ok()) return;
    std::fprintf(stderr, "simt: seed %llu: %s\n", static_cast<unsigned long long>(stream.seed),
                 stream.status.ToString().c_str());
    std::abort();
  }
};

}  // namespace

const kernels::KernelTable& SliceTable() {
  static const kernels::KernelTable table = kernels::cuda::MakeSliceTable<Shim<80>>();
  return table;
}

const kernels::KernelTable& SliceTableSm75() {
  static const kernels::KernelTable table = [] {
    kernels::KernelTable made = kernels::cuda::MakeSliceTable<Shim<75>>();
    made.name = "simt-sm75";
    return made;
  }();
  return table;
}

}  // namespace dovetail::simt
