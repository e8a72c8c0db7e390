// DeviceMap: from the devices that a rules file names to those that there are.
//
// --map cuda:1=cuda:0 puts what is meant for one on another; --map cuda:*=cpu:0 moves all of a
// kind, so that every file can be tried on a machine without its devices. Plain data and pure
// functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_MAP_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_MAP_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail::coordinator {

class DeviceMap {
 public:
  // FROM=TO, each "cuda:1" or, as FROM, "cuda:*" or "cuda" (which is "cuda:0"). TO may be "cpu", a
  // CPU worker whichever. InvalidArgument lists all mistakes.
  static absl::StatusOr<DeviceMap> Parse(absl::Span<const std::string> entries);

  // Where `device` goes: the first entry that fits, or itself. Entries are not chained.
  std::string Apply(absl::string_view device) const;
  bool empty() const { return entries_.empty(); }

 private:
  std::vector<std::pair<std::string, std::string>> entries_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_MAP_H_
