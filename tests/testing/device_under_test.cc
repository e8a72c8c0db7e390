#include "tests/testing/device_under_test.h"

#include <cstdio>
#include <cstdlib>

#include "kernels/simt/simt.h"
#include "kernels/simt/table.h"

namespace dovetail::kernels::testing {

const DeviceTable& DeviceUnderTest() { return simt::LaunchTable(); }

void RunOnDevice(const std::function<void(void* stream)>& fn) {
  static uint64_t seed = 0;
  simt::Stream stream;
  stream.seed = seed += 1000;
  stream.new_seeds = true;
  fn(&stream);
  if (stream.status.ok()) return;
  std::fprintf(stderr, "simt: seed %llu: %s\n", static_cast<unsigned long long>(stream.seed),
               stream.status.ToString().c_str());
  std::abort();
}

}  // namespace dovetail::kernels::testing
