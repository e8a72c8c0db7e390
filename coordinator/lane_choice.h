// LaneChoice: into how many lanes the decodes are cut, and how many steps are in flight.
//
// With B decodes in m lanes a worker w is busy m T_w(B/m) per token of each, and a lane's step
// cannot come back before a whole pass:
//   cycle(m) = max(max_w m T_w(B/m), Lat(B/m))
// The decodes get the m with the shortest cycle. Prefill chunks need no partner to wait for, so
// they may use more lanes than the decodes: as many as keep the busiest worker busy, Lat / max_w
// T_w. Decided again when B has changed by a quarter or some steps have passed, and a new m must be
// better by 5 %: sequences do not move without need. Plain data; owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_LANE_CHOICE_H_
#define DOVETAIL_COORDINATOR_LANE_CHOICE_H_

#include "coordinator/cost_model.h"

namespace dovetail::coordinator {

class LaneChoice {
 public:
  // `adaptive`: as above, at most `lanes`. Otherwise `lanes`, always.
  LaneChoice(int lanes, bool adaptive)
      : most_(lanes), adaptive_(adaptive), decode_lanes_(adaptive ? 1 : lanes) {
    in_flight_ = decode_lanes_;
  }

  // `decodes` sequences decode, `attended` keys in the mean; chunks of `prefill_rows` are waiting
  // (0: none).
  void Update(const CostModel& model, int decodes, double attended, int prefill_rows);

  int decode_lanes() const { return decode_lanes_; }  // the decodes are in lanes [0, this)
  int in_flight() const { return in_flight_; }        // steps; >= decode_lanes()

  static double Cycle(const CostModel& model, int decodes, double attended, int lanes);

 private:
  int BestDecodeLanes(const CostModel& model, int decodes, double attended) const;

  int most_;
  bool adaptive_;
  int decode_lanes_;
  int in_flight_;
  int decided_for_ = 0;  // decodes
  bool decided_with_prefill_ = false;
  int since_ = 0;  // updates
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_LANE_CHOICE_H_
