// LaneChoice: into how many lanes the decodes are cut, how many steps are in flight, and how much
// of a prompt one of them has.
//
// With B decodes in m lanes a worker w is busy m T_w(B/m) per token of each, and a lane's step
// cannot come back before a whole pass:
//   cycle(m) = max(max_w m T_w(B/m), Lat(B/m))
// The decodes get the m with the shortest cycle. Where all steps had the same number of rows, T_w
// of others is not known, and one lane and two are tried. Prefill chunks need no partner to wait
// for, so they may use more lanes than the decodes: as many as keep the busiest worker busy, Lat /
// max_w T_w, and one more that is on its way. Decided again when B has changed by a quarter or some
// steps have passed, and a new m must be better by 5 %: sequences do not move without need.
//
// R prompt rows in chunks of c take Lat(c) + (ceil(R / c) - 1) max_w T_w(c): small chunks fill and
// drain the route soon, large ones pay what a step costs anyway less often. Before steps of
// different sizes were seen, a prompt is cut into four chunks for each step in flight. Plain data;
// owned by the scheduler.
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

  // The most prefill rows of a step, at most `most`, if `rows` are waiting in all. Multiples of
  // kKvBlockTokens, unless it is `most`.
  int ChunkRows(const CostModel& model, int rows, int most) const;

  // How long a prompt of `rows` takes in chunks of `chunk` rows.
  double PrefillSeconds(const CostModel& model, int rows, int chunk) const;

  static double Cycle(const CostModel& model, int decodes, double attended, int lanes);

 private:
  int LanesForPrefill(const CostModel& model, int rows) const;
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
