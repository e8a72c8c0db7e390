// WorkerPlan: what a worker is told to own, as a plain struct, and its protobuf form.
//
// Generated types stop here and in the service folders; schedulers and runners see only structs.
#ifndef DOVETAIL_TRANSPORT_WORKER_PLAN_H_
#define DOVETAIL_TRANSPORT_WORKER_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/route.h"
#include "base/step_shape.h"

namespace dovetail::v1 {
class WorkerPlan;
class RouteSegment;
class StepShape;
}  // namespace dovetail::v1

namespace dovetail::transport {

struct WorkerPlan {
  uint64_t plan_id = 0;
  std::string model_path;
  uint64_t model_fingerprint = 0;
  Route route;  // the whole route: the worker finds its own segments by name
  StepShape step_shape;
  uint64_t ring_bytes = 0;
};

void ToProto(const WorkerPlan& plan, v1::WorkerPlan* proto);
void ToProto(const Segment& segment, v1::RouteSegment* proto);
void ToProto(const dovetail::StepShape& shape, v1::StepShape* proto);
// InvalidArgument names the field that is out of range.
absl::StatusOr<WorkerPlan> FromProto(const v1::WorkerPlan& proto);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_WORKER_PLAN_H_
