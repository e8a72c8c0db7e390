#include "coordinator/placement/device_spec.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/byte_size.h"

namespace dovetail::coordinator {
namespace {

constexpr int64_t kGpuReserve = int64_t{1} << 30;
constexpr int kMostThreads = 4096;
constexpr double kLargestRate = 1e18;

// One description, taken apart; everything wrong with it gathers in mistakes().
class SpecReader {
 public:
  explicit SpecReader(absl::string_view text) : text_(text.substr(0, 200)) {}

  DeviceInfo Read() {
    const std::vector<absl::string_view> parts = absl::StrSplit(text_, ':');
    if (parts.size() < 3) {
      Complain("expected NAME:MEMORY[:OPTIONS], as in cuda:0:24GiB:sm89 or cpu:0:64GiB:numa0");
      return device_;
    }
    ReadName(parts[0], parts[1]);
    const absl::StatusOr<int64_t> bytes = ParseBytes(parts[2]);
    if (bytes.ok()) {
      device_.memory_bytes = *bytes;
    } else {
      Complain(bytes.status().message());
    }
    if (device_.kind == DeviceKind::kCuda) device_.reserve_bytes = kGpuReserve;
    for (size_t i = 3; i < parts.size(); ++i) ReadOption(parts[i]);
    if (bytes.ok() && device_.budget() <= 0) {
      Complain(absl::StrCat("the reserve (", FormatBytes(device_.reserve_bytes),
                            ") leaves nothing of ", FormatBytes(device_.memory_bytes)));
    }
    const auto types = SupportedWeightTypes();
    device_.weight_types.assign(types.begin(), types.end());
    return device_;
  }

  const std::vector<std::string>& mistakes() const { return mistakes_; }

 private:
  void Complain(absl::string_view what) {
    mistakes_.push_back(absl::StrCat("--device ", text_, ": ", what));
  }

  void ReadName(absl::string_view kind, absl::string_view number) {
    device_.name = absl::StrCat(kind, ":", number);
    if (!IsDevicePattern(device_.name) || IsGroup(device_.name)) {
      Complain(
          absl::StrCat("`", device_.name, "` is not a device's name, such as cuda:0 or cpu:1"));
    }
    const absl::string_view last =
        kind.substr(kind.find('/') == absl::string_view::npos ? 0 : kind.find('/') + 1);
    if (last == "cuda" || last == "simt") {
      device_.kind = last == "cuda" ? DeviceKind::kCuda : DeviceKind::kSimt;
      device_.layout = PackedLayout::kP16Device;
    } else if (last == "npu" || last == "xpu") {
      Complain(absl::StrCat("there are no workers for ", last, " devices; known: cuda, cpu, simt"));
    } else if (last != "cpu") {
      Complain(absl::StrCat("unknown kind of device `", last, "`; known: cuda, cpu, simt"));
    }
  }

  void ReadOption(absl::string_view option) {
    const size_t equals = option.find('=');
    if (equals != absl::string_view::npos) {
      return ReadSetting(option.substr(0, equals), option.substr(equals + 1));
    }
    int number = 0;
    if (absl::StartsWith(option, "sm") && absl::SimpleAtoi(option.substr(2), &number)) {
      return ReadCapability(number);
    }
    if (absl::StartsWith(option, "numa") && absl::SimpleAtoi(option.substr(4), &number) &&
        number >= 0 && number < 1024) {
      if (device_.kind != DeviceKind::kCpu) return Complain("numaN is for CPU workers");
      device_.numa_node = number;
      return;
    }
    Complain(
        absl::StrCat("unknown option `", option,
                     "`; known: smNN, numaN, bw=RATE, bus=RATE, tops=N, threads=N, reserve=SIZE"));
  }

  void ReadCapability(int number) {
    if (device_.kind != DeviceKind::kCuda) return Complain("smNN is for GPUs");
    if (number < 75 || number > 130) {
      return Complain(
          absl::StrCat("sm", number, ": GPU workers need compute capability 7.5 (sm75) or later"));
    }
    device_.compute_capability = number;
  }

  void ReadSetting(absl::string_view name, absl::string_view value) {
    int number = 0;
    double rate = 0;
    if (name == "bw" || name == "bus") {
      if (!ReadRate(value, &rate)) {
        return Complain(absl::StrCat("`", name, "=", value, "` is not a rate such as ", name,
                                     name == "bw" ? "=1008GB/s" : "=25GB/s"));
      }
      if (name == "bw") {
        device_.bandwidth = rate;
        return;
      }
      if (device_.kind == DeviceKind::kCpu) return Complain("bus=RATE is for GPUs");
      device_.upload_bandwidth = rate;
    } else if (name == "tops") {
      if (!absl::SimpleAtod(value, &rate) || !(rate > 0) || rate > 1e6) {
        return Complain(absl::StrCat("`tops=", value, "` is not a number such as tops=330"));
      }
      device_.int8_ops = rate * 1e12;
    } else if (name == "threads") {
      if (!absl::SimpleAtoi(value, &number) || number < 1 || number > kMostThreads) {
        return Complain(
            absl::StrCat("`threads=", value, "` is not a number from 1 to ", kMostThreads));
      }
      device_.num_threads = number;
    } else if (name == "reserve") {
      const absl::StatusOr<int64_t> bytes = ParseBytes(value);
      if (!bytes.ok() && value != "0") return Complain(bytes.status().message());
      device_.reserve_bytes = bytes.value_or(0);
    } else {
      Complain(absl::StrCat(
          "unknown option `", name,
          "`; known: smNN, numaN, bw=RATE, bus=RATE, tops=N, threads=N, reserve=SIZE"));
    }
  }

  static bool ReadRate(absl::string_view value, double* rate) {
    absl::ConsumeSuffix(&value, "/s");
    const absl::StatusOr<int64_t> bytes = ParseBytes(value);
    if (!bytes.ok()) return false;
    *rate = static_cast<double>(*bytes);
    return *rate <= kLargestRate;
  }

  absl::string_view text_;
  DeviceInfo device_;
  std::vector<std::string> mistakes_;
};

}  // namespace

absl::StatusOr<DeviceInfo> ParseDeviceSpec(absl::string_view text) {
  SpecReader reader(text);
  DeviceInfo device = reader.Read();
  if (reader.mistakes().empty()) return device;
  return absl::InvalidArgumentError(absl::StrJoin(reader.mistakes(), "\n"));
}

absl::StatusOr<std::vector<DeviceInfo>> ParseDeviceSpecs(const std::vector<std::string>& specs) {
  std::vector<DeviceInfo> devices;
  std::vector<std::string> mistakes;
  for (const std::string& spec : specs) {
    absl::StatusOr<DeviceInfo> device = ParseDeviceSpec(spec);
    if (!device.ok()) {
      mistakes.emplace_back(device.status().message());
    } else if (FindDevice(devices, device->name) != nullptr) {
      mistakes.push_back(absl::StrCat("--device ", spec, ": ", device->name, " is given twice"));
    } else {
      devices.push_back(*std::move(device));
    }
  }
  if (mistakes.empty()) return devices;
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

}  // namespace dovetail::coordinator
