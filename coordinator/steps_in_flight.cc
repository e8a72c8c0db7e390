#include "coordinator/steps_in_flight.h"

#include <algorithm>

#include "absl/types/span.h"

namespace dovetail::coordinator {
namespace {

// Does a worker have more than one segment?
bool ComesBack(absl::Span<const int> segment_workers) {
  const auto end = segment_workers.end();
  for (auto it = segment_workers.begin(); it != end; ++it) {
    if (std::find(it + 1, end, *it) != end) return true;
  }
  return false;
}

}  // namespace

void StepsInFlight::Begin(int most) {
  Clear();
  most_ = most;
  first_lane_ = 0;
}

void StepsInFlight::Clear() { std::fill(steps_.begin(), steps_.end(), Step()); }

int StepsInFlight::count() const {
  return static_cast<int>(
      std::count_if(steps_.begin(), steps_.end(), [](const Step& step) { return step.in_flight; }));
}

void StepsInFlight::NoteSent(int lane, uint64_t number, absl::Duration allowed, absl::Time now) {
  const bool alone = count() == 0;
  for (Step& other : steps_) other.alone = false;
  steps_[lane] = {true, number, Patience(allowed), now, alone};
  const int lanes = static_cast<int>(steps_.size());
  if (most_ < lanes) first_lane_ = (lane + 1) % lanes;
}

bool StepsInFlight::IsNext(uint32_t lane, uint64_t number) const {
  if (lane >= steps_.size() || !steps_[lane].in_flight || steps_[lane].number != number) {
    return false;
  }
  return std::none_of(steps_.begin(), steps_.end(), [number](const Step& step) {
    return step.in_flight && step.number < number;
  });
}

const StepsInFlight::Step* StepsInFlight::FindOverdue(absl::Time now) {
  const Step* overdue = nullptr;
  for (Step& step : steps_) {  // a look at each of them
    if (step.in_flight && step.patience.Exhausted(now) && overdue == nullptr) overdue = &step;
  }
  return overdue;
}

absl::Duration StepsInFlight::UntilNextLook() const {
  absl::Duration left = absl::InfiniteDuration();
  for (const Step& step : steps_) {
    if (step.in_flight) left = std::min(left, step.patience.UntilNextLook());
  }
  return left;
}

int MostInFlight(const Pipeline& pipeline, const EngineOptions& options) {
  if (pipeline.one_step_at_a_time()) return 1;
  if (!ComesBack(pipeline.segment_workers())) return options.lanes;
  return std::clamp(options.lanes_on_loops, 1, options.lanes);
}

}  // namespace dovetail::coordinator
