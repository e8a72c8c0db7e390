// Where a step's time goes: the segments of a route, summed by worker and by what they compute, as
// `dovetail status` shows them. Pure functions.
#ifndef DOVETAIL_TOOLS_DOVETAIL_SEGMENT_TIMES_H_
#define DOVETAIL_TOOLS_DOVETAIL_SEGMENT_TIMES_H_

#include <string>

namespace dovetail::v1 {
class GetPlanResponse;
class GetStatusResponse;
}  // namespace dovetail::v1

namespace dovetail::tools {

// Of one model. A line for each worker and kind of segment ("simt:0    attention, router"), the one
// that takes longest first: how many segments, the time of a step in all of them, its share of what
// all workers compute for a step, the slowest of the segments. Times are means since the workers
// started. What segments compute is not told where the plan does not have them. Empty before the
// first step.
std::string SegmentTimesTable(const v1::GetStatusResponse& status, const v1::GetPlanResponse& plan);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_SEGMENT_TIMES_H_
