#include "coordinator/placement/auto_split.h"

#include <limits>

#include "base/check.h"

namespace dovetail::coordinator {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Splitter {
 public:
  Splitter(absl::Span<const SplitItem> items, absl::Span<const SplitDevice> devices, bool in_budget)
      : num_items_(static_cast<int>(items.size())),
        devices_(devices),
        in_budget_(in_budget),
        bytes_(items.size() + 1, 0),
        work_(items.size() + 1, 0) {
    for (size_t i = 0; i < items.size(); ++i) {
      bytes_[i + 1] = bytes_[i] + items[i].bytes;
      work_[i + 1] = work_[i] + items[i].work;
    }
  }

  // False where nothing fits.
  bool Run(std::vector<int>* begins) const {
    const int num_devices = static_cast<int>(devices_.size());
    // best[d][e]: least cost of the first d + 1 devices holding the first e items; from[d][e]:
    // where the run of device d begins.
    std::vector<std::vector<double>> best(num_devices, std::vector<double>(num_items_ + 1, kNever));
    std::vector<std::vector<int>> from(num_devices, std::vector<int>(num_items_ + 1, 0));
    for (int end = 0; end <= num_items_; ++end) best[0][end] = Cost(0, 0, end);
    for (int device = 1; device < num_devices; ++device) {
      for (int end = 0; end <= num_items_; ++end) {
        for (int begin = 0; begin <= end; ++begin) {
          const double total = best[device - 1][begin] + Cost(device, begin, end);
          if (total >= best[device][end]) continue;
          best[device][end] = total;
          from[device][end] = begin;
        }
      }
    }
    if (best[num_devices - 1][num_items_] == kNever) return false;
    begins->assign(num_devices, 0);
    for (int device = num_devices - 1, end = num_items_; device > 0; --device) {
      (*begins)[device] = from[device][end];
      end = (*begins)[device];
    }
    return true;
  }

 private:
  double Cost(int idx, int begin, int end) const {
    const SplitDevice& device = devices_[idx];
    if (in_budget_ && device.extra.bytes + bytes_[end] - bytes_[begin] > device.room) {
      return kNever;
    }
    const double seconds = (device.extra.work + work_[end] - work_[begin]) / device.speed;
    return seconds * seconds;
  }

  int num_items_;
  absl::Span<const SplitDevice> devices_;
  bool in_budget_;
  std::vector<int64_t> bytes_;  // of the items before each
  std::vector<double> work_;
};

}  // namespace

Split SplitRuns(absl::Span<const SplitItem> items, absl::Span<const SplitDevice> devices) {
  DT_CHECK(!devices.empty());
  Split split;
  split.fits = Splitter(items, devices, /*in_budget=*/true).Run(&split.begins);
  if (!split.fits) DT_CHECK(Splitter(items, devices, /*in_budget=*/false).Run(&split.begins));
  return split;
}

}  // namespace dovetail::coordinator
