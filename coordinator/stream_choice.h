// StreamChoice: for which steps GPU workers stream the experts of CPU workers
// (transport::StepHeader::kStreamExperts).
//
// To stream takes about as long for few rows as for many: all experts cross the bus. So a step with
// many rows is streamed, either from a configured number on, or where it is predicted to be done
// sooner than by the CPU workers (cost_model.h). Until a streamed step came back its time is that
// of the bus; from then on what was measured, in proportion to the rows beyond those.
//
// A prompt that is streamed goes in chunks as large as they may be, others as fills the route best
// (lane_choice.h): whichever is predicted to be done with the prompt sooner. Plain data; owned by
// the scheduler.
#ifndef DOVETAIL_COORDINATOR_STREAM_CHOICE_H_
#define DOVETAIL_COORDINATOR_STREAM_CHOICE_H_

#include <cstdint>

#include "coordinator/cost_model.h"
#include "coordinator/lane_choice.h"

namespace dovetail::coordinator {

// What a plan's GPU workers read of CPU workers' experts for one step, and how fast.
struct StreamCost {
  int64_t bytes = 0;            // 0: nothing is streamed
  double bytes_per_second = 0;  // 0: not known
};

class StreamChoice {
 public:
  static constexpr int kNever = 0;
  static constexpr int kAuto = -1;
  // With kAuto a step is streamed if that takes less than this share of the usual time.
  static constexpr double kWorthIt = 0.9;

  // `rows`: from how many on a step is streamed, or one of the above.
  explicit StreamChoice(int rows) : rows_(rows) {}

  void SetRoute(const StreamCost& cost);
  bool Streams(const CostModel& model, const StepWork& work) const;
  // The most prefill rows of a step, at most `most`, if `rows` are waiting in all.
  int ChunkRows(const CostModel& model, const LaneChoice& lanes, int rows, int most) const;
  // A streamed step that was alone has come back.
  void Observe(const StepWork& work, double seconds);

  double Seconds(double rows) const;  // of a streamed step; infinite: not known

 private:
  const int rows_;
  bool possible_ = false;
  double known_rows_ = 0;  // of the steps that known_seconds_ is from; 0: of the bus alone
  double known_seconds_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_STREAM_CHOICE_H_
