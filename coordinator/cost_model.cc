#include "coordinator/cost_model.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace dovetail::coordinator {
namespace {

constexpr double kDecay = 0.995;         // of old samples, with each new one
constexpr double kFarAbove = 2.0;        // times what was expected: counts less
constexpr double kLeastSeconds = 20e-6;  // below that the clock's noise is all there is
constexpr double kRidge = 1e-6;          // keeps terms that were never seen at zero
constexpr int kSweeps = 60;
constexpr int kFitAlways = 64;     // of the first samples each is fitted,
constexpr int kFitEvery = 8;       // later one in so many
constexpr double kHopRise = 1.02;  // the least hop time seen may rise this fast again

enum Term { kConstant, kDecode, kPrefill, kAttended, kExperts, kCopies };

}  // namespace

void CostModel::SetRoute(absl::Span<const int> worker_of_segment) {
  if (std::equal(worker_of_segment.begin(), worker_of_segment.end(), worker_of_segment_.begin(),
                 worker_of_segment_.end())) {
    return;
  }
  worker_of_segment_.assign(worker_of_segment.begin(), worker_of_segment.end());
  int num_workers = 0;
  for (int worker : worker_of_segment) {
    DT_CHECK_GE(worker, 0);
    num_workers = std::max(num_workers, worker + 1);
  }
  workers_.assign(num_workers, Worker());
  seconds_.assign(num_workers, 0);
  num_observed_ = 0;
  decode_rows_ = prefill_rows_ = {};
  hop_seconds_ = -1;
}

// Scaled so that the coefficients are of similar size.
CostModel::Terms CostModel::TermsOf(const StepWork& work) const {
  Terms terms = {};
  terms[kConstant] = 1;
  terms[kDecode] = work.decode_rows / 8;
  terms[kPrefill] = work.prefill_rows / 64;
  terms[kAttended] = work.attended / 8192;
  if (options_.num_experts > 0) {
    const double rows = work.decode_rows + work.prefill_rows;
    const double missed = 1.0 - double{1} * options_.experts_used / options_.num_experts;
    terms[kExperts] = 1.0 - std::pow(std::max(0.0, missed), rows);
  }
  terms[kCopies] = work.copies / 32;
  return terms;
}

double CostModel::Predict(const Worker& worker, const Terms& terms) {
  double seconds = 0;
  for (int i = 0; i < kNumTerms; ++i) seconds += worker.coefficients[i] * terms[i];
  return seconds;
}

void CostModel::Observe(const StepWork& work, absl::Span<const uint32_t> segment_us,
                        double round_trip_seconds, bool alone) {
  if (segment_us.size() != worker_of_segment_.size() || segment_us.empty()) return;
  std::fill(seconds_.begin(), seconds_.end(), 0.0);
  double busy = 0;
  for (size_t i = 0; i < segment_us.size(); ++i) {
    seconds_[worker_of_segment_[i]] += segment_us[i] * 1e-6;
    busy += segment_us[i] * 1e-6;
  }
  const Terms terms = TermsOf(work);
  ++num_observed_;
  if (work.prefill_rows > 0) {
    prefill_rows_.Add(work.prefill_rows);
  } else if (work.decode_rows > 0) {
    decode_rows_.Add(work.decode_rows);
  }
  const bool fit = num_observed_ <= kFitAlways || num_observed_ % kFitEvery == 0;
  for (size_t i = 0; i < workers_.size(); ++i) {
    Learn(&workers_[i], terms, seconds_[i]);
    if (fit) Fit(&workers_[i]);
  }
  if (!alone || round_trip_seconds < busy) return;
  const double hops = round_trip_seconds - busy;
  hop_seconds_ = hop_seconds_ < 0 ? hops : std::min(hops, hop_seconds_ * kHopRise + 1e-7);
}

void CostModel::Learn(Worker* worker, const Terms& terms, double seconds) {
  const double scale = std::max(seconds, kLeastSeconds);
  double weight = 1.0 / (scale * scale);
  if (num_observed_ > kEnough) {
    const double expected = std::max(Predict(*worker, terms), kLeastSeconds);
    if (seconds > kFarAbove * expected) weight *= kFarAbove * expected / seconds;
  }
  for (int i = 0; i < kNumTerms; ++i) {
    for (int j = 0; j < kNumTerms; ++j) {
      worker->moments[i][j] = kDecay * worker->moments[i][j] + weight * terms[i] * terms[j];
    }
    worker->targets[i] = kDecay * worker->targets[i] + weight * terms[i] * seconds;
  }
  worker->copies_seen = kDecay * worker->copies_seen + (terms[kCopies] > 0 ? 1 : 0);
}

// Non-negative least squares by coordinate descent.
void CostModel::Fit(Worker* worker) {
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (int i = 0; i < kNumTerms; ++i) {
      double rest = worker->targets[i];
      for (int j = 0; j < kNumTerms; ++j) {
        if (j != i) rest -= worker->moments[i][j] * worker->coefficients[j];
      }
      const double own = worker->moments[i][i] * (1 + kRidge);
      worker->coefficients[i] = own > 0 ? std::max(0.0, rest / own) : 0.0;
    }
  }
}

double CostModel::WorkerSeconds(int worker, const StepWork& work) const {
  return Predict(workers_[worker], TermsOf(work));
}

double CostModel::BottleneckSeconds(const StepWork& work) const {
  const Terms terms = TermsOf(work);
  double most = 0;
  for (const Worker& worker : workers_) most = std::max(most, Predict(worker, terms));
  return most;
}

double CostModel::PassSeconds(const StepWork& work) const {
  const Terms terms = TermsOf(work);
  double sum = std::max(0.0, hop_seconds_);
  for (const Worker& worker : workers_) sum += Predict(worker, terms);
  return sum;
}

double CostModel::block_copy_seconds() const {
  double most = 0;
  for (const Worker& worker : workers_) {
    if (worker.copies_seen < 1) return options_.block_copy_seconds;
    most = std::max(most, worker.coefficients[kCopies] / 32);
  }
  return workers_.empty() ? options_.block_copy_seconds : most;
}

}  // namespace dovetail::coordinator
