// DeviceInfo: a device that modules can be placed on: what a worker registered, or what a person
// described. Plain data.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/packed_layout.h"
#include "base/weight_type.h"

namespace dovetail::coordinator {

struct DeviceInfo {
  std::string name;          // "cpu:0"
  int64_t memory_bytes = 0;  // budget: what is free, or what was configured
  int num_threads = 1;
  PackedLayout layout = PackedLayout::kP16;
  std::vector<WeightType> weight_types;  // that its kernels compute with
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_
