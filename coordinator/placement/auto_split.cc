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
        before_(items.size() + 1) {
    SplitItem all;
    for (size_t i = 0; i < items.size(); ++i) {
      before_[i] = all;
      all += items[i];
    }
    before_[items.size()] = all;
    double speed = 0, prompt_speed = 0;
    for (const SplitDevice& device : devices) {
      all += device.extra;
      speed += device.speed;
      prompt_speed += device.prompt_speed;
    }
    seconds_ = all.work / speed;
    prompt_seconds_ = all.prompt_work / prompt_speed;
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
  static double SquareOfShare(double seconds, double of) {
    return of > 0 ? (seconds / of) * (seconds / of) : 0;
  }

  double Cost(int idx, int begin, int end) const {
    const SplitDevice& device = devices_[idx];
    const SplitItem &from = before_[begin], &to = before_[end], &extra = device.extra;
    if (in_budget_ && extra.bytes + to.bytes - from.bytes > device.room) return kNever;
    const double seconds = (extra.work + to.work - from.work) / device.speed;
    const double prompt_seconds =
        (extra.prompt_work + to.prompt_work - from.prompt_work) / device.prompt_speed;
    return SquareOfShare(seconds, seconds_) + SquareOfShare(prompt_seconds, prompt_seconds_);
  }

  int num_items_;
  absl::Span<const SplitDevice> devices_;
  bool in_budget_;
  std::vector<SplitItem> before_;    // the sum of the items before each
  double seconds_, prompt_seconds_;  // of everything, on all devices together
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
