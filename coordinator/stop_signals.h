// StopSignals: SIGTERM and SIGINT as a counter, and the orderly end that they ask for.
//
// The first signal drains, a second one cuts the draining short. Shared by dovetail-coordinator and
// `dovetail serve`. The handler only counts; everything else happens on the calling thread.
#ifndef DOVETAIL_COORDINATOR_STOP_SIGNALS_H_
#define DOVETAIL_COORDINATOR_STOP_SIGNALS_H_

#include "absl/time/time.h"
#include "coordinator/coordinator.h"

namespace dovetail::coordinator {

// Installs the handlers; SIGPIPE is ignored.
void InstallStopSignals();
bool StopAsked();

// Drains until all requests are finished, the timeout, or another signal; then shuts everything
// down. Returns the number of requests left unfinished.
int DrainAndShutdown(Coordinator* coordinator, absl::Duration timeout);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_STOP_SIGNALS_H_
