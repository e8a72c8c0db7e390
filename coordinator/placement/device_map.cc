#include "coordinator/placement/device_map.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {
namespace {

// "cuda" means the first one there.
std::string WithNumber(absl::string_view device) {
  const bool is_gpu = device == "cuda" || device == "npu" || device == "xpu";
  return absl::StrCat(device, is_gpu ? ":0" : "");
}

}  // namespace

absl::StatusOr<DeviceMap> DeviceMap::Parse(absl::Span<const std::string> entries) {
  DeviceMap map;
  std::vector<std::string> mistakes;
  for (const std::string& entry : entries) {
    const std::vector<std::string> sides = absl::StrSplit(entry, '=');
    const std::string from = WithNumber(absl::StripAsciiWhitespace(sides[0]));
    const std::string to =
        sides.size() == 2 ? WithNumber(absl::StripAsciiWhitespace(sides[1])) : "";
    // A group goes to another with its numbers.
    const bool groups = absl::EndsWith(from, ":*") && absl::EndsWith(to, ":*");
    const bool is_device = to == "cpu" || (IsDevicePattern(to) && (groups || !IsGroup(to)));
    if (!is_device || !(from == "cpu" || IsDevicePattern(from))) {
      mistakes.push_back(absl::StrCat("--map: `", entry,
                                      "` must be FROM=TO, such as cuda:1=cuda:0, cuda:*=cpu:0 or "
                                      "cuda:*=simt:*"));
      continue;
    }
    map.entries_.emplace_back(from, to);
  }
  if (mistakes.empty()) return map;
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

std::string DeviceMap::Apply(absl::string_view device) const {
  for (const auto& [from, to] : entries_) {
    absl::string_view kind = from;
    if (from == device) return to;
    if (!absl::ConsumeSuffix(&kind, "*") || !absl::ConsumePrefix(&device, kind)) continue;
    absl::string_view to_kind = to;
    return absl::ConsumeSuffix(&to_kind, "*") ? absl::StrCat(to_kind, device) : to;
  }
  return std::string(device);
}

}  // namespace dovetail::coordinator
