#include "coordinator/placement/device_info.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace dovetail::coordinator {
namespace {

// "host-b/cuda:0" in its three parts; host is empty where there is none.
struct NameParts {
  absl::string_view host, kind, number;
};

bool IsWord(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

bool IsNumber(absl::string_view text) {
  constexpr size_t kMostDigits = 4;
  return !text.empty() && text.size() <= kMostDigits &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         (text.size() == 1 || text[0] != '0');
}

bool SplitName(absl::string_view name, NameParts* parts) {
  const size_t slash = name.find('/');
  if (slash != absl::string_view::npos) {
    parts->host = name.substr(0, slash);
    if (!IsWord(parts->host)) return false;
    name.remove_prefix(slash + 1);
  }
  const size_t colon = name.find(':');
  if (colon == absl::string_view::npos) return false;
  parts->kind = name.substr(0, colon);
  parts->number = name.substr(colon + 1);
  return IsWord(parts->kind) && (parts->number == "*" || IsNumber(parts->number));
}

}  // namespace

bool Means(absl::string_view pattern, const DeviceInfo& device) {
  if (pattern == device.name) return true;
  NameParts wanted, own;
  if (!SplitName(pattern, &wanted) || !SplitName(device.name, &own)) return false;
  if (wanted.host != own.host) return false;
  if (wanted.kind == "numa") {
    return device.kind == DeviceKind::kCpu && device.numa_node >= 0 &&
           (wanted.number == "*" || wanted.number == absl::StrCat(device.numa_node));
  }
  return wanted.kind == own.kind && wanted.number == "*";
}

std::optional<DeviceKind> KindOf(absl::string_view name) {
  NameParts parts;
  if (!SplitName(name, &parts)) return std::nullopt;
  if (parts.kind == "cpu") return DeviceKind::kCpu;
  if (parts.kind == "cuda") return DeviceKind::kCuda;
  if (parts.kind == "simt") return DeviceKind::kSimt;
  return std::nullopt;
}

bool IsDevicePattern(absl::string_view pattern) {
  NameParts parts;
  return SplitName(pattern, &parts);
}

bool IsGroup(absl::string_view pattern) {
  NameParts parts;
  return SplitName(pattern, &parts) && (parts.number == "*" || parts.kind == "numa");
}

std::string DeviceNames(absl::Span<const DeviceInfo> devices) {
  return absl::StrJoin(devices, ", ", [](std::string* out, const DeviceInfo& device) {
    absl::StrAppend(out, device.name);
  });
}

const DeviceInfo* FindDevice(absl::Span<const DeviceInfo> devices, absl::string_view name) {
  for (const DeviceInfo& device : devices) {
    if (device.name == name) return &device;
  }
  return nullptr;
}

}  // namespace dovetail::coordinator
