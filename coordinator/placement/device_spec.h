// ParseDeviceSpec: a device as a person describes it for a plan:
//
//   cuda:0:24GiB:sm89[:bw=1008GB/s]      cpu:0:512GiB:numa0[:threads=32] host-b/cuda:0:80GB:sm90
//
// NAME:MEMORY, then in any order smNN (a GPU's compute capability), numaN (a CPU worker's node),
// bw=RATE (what it reads from its memory), tops=N (10^12 int8 multiplications and additions per
// second), threads=N, reserve=SIZE (what stays free; GPUs: 1 GiB). Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_SPEC_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_SPEC_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {

// InvalidArgument lists everything that is wrong with the text.
absl::StatusOr<DeviceInfo> ParseDeviceSpec(absl::string_view text);

// All of them; a name given twice is a mistake. InvalidArgument lists the mistakes of all.
absl::StatusOr<std::vector<DeviceInfo>> ParseDeviceSpecs(const std::vector<std::string>& specs);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_SPEC_H_
