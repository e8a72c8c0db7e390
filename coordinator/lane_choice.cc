#include "coordinator/lane_choice.h"

#include <algorithm>
#include <cmath>

#include "base/kv_cache.h"

namespace dovetail::coordinator {
namespace {

constexpr double kWorthIt = 0.95;  // of the present cycle
constexpr double kAsGood = 1.02;   // as the shortest: then fewer lanes are taken
constexpr int kLookAgain = 64;     // updates
constexpr int kTrial = 16;         // updates
constexpr int kLeastChunk = 32;    // rows: fewer are slower each, whatever a step costs
constexpr int kChunksOfUnknown = 4;

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
  if (!adaptive_) return;
  if (!model.ready()) {
    in_flight_ =
        prefill_rows > 0 ? std::clamp(model.num_workers(), decode_lanes_, most_) : decode_lanes_;
    return;
  }
  const bool with_prefill = prefill_rows > 0;
  const bool same =
      4 * std::abs(decodes - decided_for_) <= decided_for_ && with_prefill == decided_with_prefill_;
  if (same && ++since_ < kLookAgain) return;
  since_ = 0;
  decided_for_ = decodes;
  decided_with_prefill_ = with_prefill;
  const bool known = model.num_workers() == 1 || model.knows_decode_rows();
  if (decodes <= 1) {
    decode_lanes_ = 1;
  } else if (known) {
    decode_lanes_ = BestDecodeLanes(model, decodes, attended);
  } else {
    decode_lanes_ = decode_lanes_ == 1 ? std::min(2, most_) : 1;
    since_ = kLookAgain - kTrial;
  }
  in_flight_ = with_prefill ? LanesForPrefill(model, prefill_rows) : decode_lanes_;
}

int LaneChoice::LanesForPrefill(const CostModel& model, int rows) const {
  StepWork chunk;
  chunk.AddPrefill(0, rows);
  const double busiest = model.BottleneckSeconds(chunk);
  const double stages = busiest > 0 ? model.PassSeconds(chunk) / busiest : 1;
  const double wanted = std::ceil(stages - 0.05) + (model.num_workers() > 1 ? 1 : 0);
  return std::clamp(static_cast<int>(std::min<double>(wanted, most_)), decode_lanes_, most_);
}

double LaneChoice::PrefillSeconds(const CostModel& model, int rows, int chunk) const {
  StepWork work;
  work.prefill_rows = chunk;
  work.attended = 0.5 * chunk * rows;
  const double pass = model.PassSeconds(work);
  const double each = std::max(model.BottleneckSeconds(work), pass / in_flight_);
  const int steps = (rows + chunk - 1) / chunk;
  return pass + each * (steps - 1);
}

int LaneChoice::ChunkRows(const CostModel& model, int rows, int most) const {
  if (in_flight_ == 1 || rows <= kLeastChunk) return most;
  if (!model.ready() || !model.knows_prefill_rows()) {
    const int part = rows / (kChunksOfUnknown * in_flight_) / kKvBlockTokens * kKvBlockTokens;
    return std::min(most, std::max(part, kLeastChunk));
  }
  const auto seconds = [&](int chunk) { return PrefillSeconds(model, rows, chunk); };
  int best = most;
  double shortest = seconds(most);
  for (int chunk = (most - 1) / kKvBlockTokens * kKvBlockTokens; chunk >= kLeastChunk;
       chunk -= kKvBlockTokens) {
    if (seconds(chunk) * kAsGood >= shortest) continue;
    best = chunk;
    shortest = seconds(chunk);
  }
  return best;
}

}  // namespace dovetail::coordinator
