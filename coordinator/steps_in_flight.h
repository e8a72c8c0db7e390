// StepsInFlight: which lanes have a step on its way through the workers, and how long that may
// take.
//
// A lane has at most one, and all come back in the order in which they were sent. Where the route
// comes back to a worker, fewer lanes than there are may have one at a time, and take turns.
//
// Owned by EngineLoop, on its thread, which passes the time in. Allocates when it is made, and
// never again.
#ifndef DOVETAIL_COORDINATOR_STEPS_IN_FLIGHT_H_
#define DOVETAIL_COORDINATOR_STEPS_IN_FLIGHT_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "base/patience.h"
#include "coordinator/engine.h"
#include "coordinator/pipeline.h"

namespace dovetail::coordinator {

class StepsInFlight {
 public:
  struct Step {  // of a lane
    bool in_flight = false;
    uint64_t number = 0;
    Patience patience{absl::InfiniteDuration()};
    absl::Time sent;
    bool alone = false;  // no other step was in flight since
  };

  explicit StepsInFlight(int lanes) : steps_(lanes) {}

  // A new pipeline, with at most so many steps at once; none is in flight yet.
  void Begin(int most);
  // The pipeline is lost, and so are its steps.
  void Clear();

  int count() const;  // in flight
  const Step& of(int lane) const { return steps_[lane]; }
  bool MaySend() const { return count() < most_; }
  int first_lane() const { return first_lane_; }  // whose turn it is

  void NoteSent(int lane, uint64_t number, absl::Duration allowed, absl::Time now);
  void NoteBack(int lane) { steps_[lane].in_flight = false; }
  // Is this the step that has to come back next? Any numbers: workers say them.
  bool IsNext(uint32_t lane, uint64_t number) const;

  // A look (base/patience.h): a step that took longer than allowed, or null.
  const Step* FindOverdue(absl::Time now);
  absl::Duration UntilNextLook() const;

 private:
  std::vector<Step> steps_;  // by lane
  int most_ = 0;
  int first_lane_ = 0;
};

// How many steps may be in flight at once on the route of `pipeline`.
int MostInFlight(const Pipeline& pipeline, const EngineOptions& options);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_STEPS_IN_FLIGHT_H_
