#include "coordinator/lane_choice.h"

#include <algorithm>
#include <cmath>

namespace dovetail::coordinator {
namespace {

constexpr double kWorthIt = 0.95;  // of the present cycle
constexpr double kAsGood = 1.02;   // as the shortest: then fewer lanes are taken
constexpr int kLookAgain = 64;     // updates

}  // namespace

double LaneChoice::Cycle(const CostModel& model, int decodes, double attended, int lanes) {
  StepWork work;
  work.decode_rows = static_cast<double>(decodes) / lanes;
  work.attended = work.decode_rows * attended;
  return std::max(lanes * model.BottleneckSeconds(work), model.PassSeconds(work));
}

int LaneChoice::BestDecodeLanes(const CostModel& model, int decodes, double attended) const {
  const int most = std::clamp(decodes, 1, most_);
  const auto cycle = [&](int lanes) { return Cycle(model, decodes, attended, lanes); };
  double shortest = cycle(1);
  for (int lanes = 2; lanes <= most; ++lanes) shortest = std::min(shortest, cycle(lanes));
  int fewest = 1;
  while (cycle(fewest) > shortest * kAsGood) ++fewest;
  const int now = std::min(decode_lanes_, most);
  return cycle(now) * kWorthIt <= cycle(fewest) ? now : fewest;
}

void LaneChoice::Update(const CostModel& model, int decodes, double attended, int prefill_rows) {
  if (!adaptive_ || !model.ready()) return;
  const bool with_prefill = prefill_rows > 0;
  const bool same =
      4 * std::abs(decodes - decided_for_) <= decided_for_ && with_prefill == decided_with_prefill_;
  if (same && ++since_ < kLookAgain) return;
  since_ = 0;
  decided_for_ = decodes;
  decided_with_prefill_ = with_prefill;
  decode_lanes_ = decodes > 0 ? BestDecodeLanes(model, decodes, attended) : 1;
  in_flight_ = decode_lanes_;
  if (!with_prefill) return;
  StepWork chunk;
  chunk.AddPrefill(0, prefill_rows);
  const double busiest = model.BottleneckSeconds(chunk);
  const double wanted = busiest > 0 ? std::ceil(model.PassSeconds(chunk) / busiest - 0.05) : 1;
  in_flight_ = std::clamp(static_cast<int>(std::min<double>(wanted, most_)), decode_lanes_, most_);
}

}  // namespace dovetail::coordinator
