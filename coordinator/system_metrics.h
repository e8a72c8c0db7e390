// The metrics of what the server is and has: state, queue, KV cache, workers and their memory, as
// Prometheus reads them, from one snapshot. What is of a model has a label `model`, also where
// there is only one. Pure function.
#ifndef DOVETAIL_COORDINATOR_SYSTEM_METRICS_H_
#define DOVETAIL_COORDINATOR_SYSTEM_METRICS_H_

#include "base/metrics.h"
#include "coordinator/status_snapshot.h"

namespace dovetail::coordinator {

void WriteSystemMetrics(const StatusSnapshot& status, MetricsText* text);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SYSTEM_METRICS_H_
