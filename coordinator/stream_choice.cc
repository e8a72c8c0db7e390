#include "coordinator/stream_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dovetail::coordinator {
namespace {

constexpr double kNotKnown = std::numeric_limits<double>::infinity();
constexpr double kNewest = 0.3;  // weight of the last step

}  // namespace

void StreamChoice::SetRoute(const StreamCost& cost) {
  possible_ = cost.bytes > 0 && rows_ != kNever;
  known_rows_ = 0;
  known_seconds_ = cost.bytes_per_second > 0
                       ? static_cast<double>(cost.bytes) / cost.bytes_per_second
                       : kNotKnown;
}

double StreamChoice::Seconds(double rows) const {
  if (known_rows_ == 0) return known_seconds_;
  return known_seconds_ * std::max(1.0, rows / known_rows_);
}

bool StreamChoice::Streams(const CostModel& model, const StepWork& work) const {
  if (!possible_) return false;
  const double rows = work.decode_rows + work.prefill_rows;
  if (rows_ != kAuto) return rows >= rows_;
  if (!model.ready() || !model.knows_prefill_rows()) return false;
  return Seconds(rows) < kWorthIt * model.PassSeconds(work);
}

int StreamChoice::ChunkRows(const CostModel& model, const LaneChoice& lanes, int rows,
                            int most) const {
  const int usual = lanes.ChunkRows(model, rows, most);
  const int whole = std::min(rows, most);
  if (!possible_ || whole <= usual) return usual;
  if (rows_ != kAuto) return whole >= rows_ ? most : usual;
  if (!model.ready() || !model.knows_prefill_rows()) return usual;
  const double streamed = std::ceil(static_cast<double>(rows) / whole) * Seconds(whole);
  return streamed < kWorthIt * lanes.PrefillSeconds(model, rows, usual) ? most : usual;
}

void StreamChoice::Observe(const StepWork& work, double seconds) {
  const double rows = work.decode_rows + work.prefill_rows;
  if (known_rows_ == 0) {
    known_rows_ = rows;
    known_seconds_ = seconds;
    return;
  }
  const double expected = Seconds(rows);
  if (rows > known_rows_) {  // what more rows take is known from now on
    known_rows_ = rows;
    known_seconds_ = expected;
  }
  known_seconds_ *= 1 + kNewest * (seconds / expected - 1);
}

}  // namespace dovetail::coordinator
