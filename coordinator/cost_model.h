// CostModel: how long a step takes on each worker, fitted to what the workers measured.
//
// For one worker the time of a step that has d decode rows, x prefill rows and A keys attended in
// all is
//   t = c + a d + b x + g A + e E(d + x) + k n
// E(r) = N (1 - (1 - u/N)^r) is the number of experts that r rows touch when each uses u of N (only
// for models with experts), n the number of KV blocks that are copied. No coefficient is negative.
//
// The fit is least squares over the past with weights that decay, each sample by its relative
// error, so that neither long steps nor one hiccup of the machine dominate; a sample far above what
// was expected counts less still. Everything is of fixed size: observing allocates nothing. A pure
// function of the observations; owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_COST_MODEL_H_
#define DOVETAIL_COORDINATOR_COST_MODEL_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace dovetail::coordinator {

// What a step asks of every worker. Rows may be fractions: the mean of several steps.
struct StepWork {
  double decode_rows = 0;
  double prefill_rows = 0;
  double attended = 0;  // keys, summed over the rows
  double copies = 0;    // KV blocks

  // `rows` more of a sequence, the first at `position`.
  void AddPrefill(int position, int rows) {
    prefill_rows += rows;
    attended += rows * (position + 0.5 * (rows + 1));
  }
  void AddDecode(int position) {
    decode_rows += 1;
    attended += position + 1;
  }
};

struct CostModelOptions {
  int num_experts = 0;  // of a layer; 0: none
  int experts_used = 0;
  double block_copy_seconds = 0;  // of one KV block on the slowest worker, before any was measured
};

class CostModel {
 public:
  static constexpr int kNumTerms = 6;

  explicit CostModel(const CostModelOptions& options) : options_(options) {}

  // The worker of every segment, as numbers from 0 on. What was learned is kept if they are the
  // same as before.
  void SetRoute(absl::Span<const int> worker_of_segment);
  // A step that came back: the microseconds of each segment, and all that went by from sending to
  // receiving. `alone`: no other step was in flight meanwhile. Ignored if the number of segments is
  // not the route's.
  void Observe(const StepWork& work, absl::Span<const uint32_t> segment_us,
               double round_trip_seconds, bool alone);

  // Enough was seen to predict.
  bool ready() const { return !workers_.empty() && num_observed_ >= kEnough; }
  int num_workers() const { return static_cast<int>(workers_.size()); }
  // Steps of different sizes were seen, so that what a step costs whatever it has can be told from
  // what its rows cost: predictions for other sizes mean something.
  bool knows_decode_rows() const { return decode_rows_.differ(); }
  bool knows_prefill_rows() const { return prefill_rows_.differ(); }
  // The busy time of one worker, over all its segments.
  double WorkerSeconds(int worker, const StepWork& work) const;
  // Of the busiest worker: what one step in flight after the other costs.
  double BottleneckSeconds(const StepWork& work) const;
  // From one end of the route to the other, hops included.
  double PassSeconds(const StepWork& work) const;
  double block_copy_seconds() const;

 private:
  static constexpr int kEnough = 12;
  using Terms = std::array<double, kNumTerms>;
  struct Sizes {  // of the steps on this route
    double least = 0, most = 0;

    void Add(double rows) {
      least = most == 0 ? rows : std::min(least, rows);
      most = std::max(most, rows);
    }
    bool differ() const { return most > 1.4 * least; }
  };
  struct Worker {
    std::array<Terms, kNumTerms> moments = {};  // sum of w x x^T
    Terms targets = {};                         // sum of w x t
    Terms coefficients = {};
    double copies_seen = 0;  // weight of the samples with copies
  };

  Terms TermsOf(const StepWork& work) const;
  static double Predict(const Worker& worker, const Terms& terms);
  void Learn(Worker* worker, const Terms& terms, double seconds);
  static void Fit(Worker* worker);

  const CostModelOptions options_;
  std::vector<int> worker_of_segment_;
  std::vector<Worker> workers_;
  std::vector<double> seconds_;  // of each worker in the observed step
  int64_t num_observed_ = 0;
  Sizes decode_rows_;  // of steps without prefill
  Sizes prefill_rows_;
  double hop_seconds_ = -1;  // of all hops of a pass together; < 0: not measured
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_COST_MODEL_H_
