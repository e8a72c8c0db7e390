// Coordinator: the whole control process as one object: one or several models (served_model.h),
// each with its plan, its workers and its engine, and the servers that they share. `dovetail
// serve`, `dovetail-coordinator`, `dovetail eval` and `bench` all run this same object, so what is
// measured is what serves.
//
// States of a model: waiting for workers -> loading -> ready -> (recovering -> loading -> ready)*
// -> draining -> stopped. One control thread for each owns the state machine (cluster.h); what
// becomes of one model does not concern the others. This facade is thread-safe.
#ifndef DOVETAIL_COORDINATOR_COORDINATOR_H_
#define DOVETAIL_COORDINATOR_COORDINATOR_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/config.h"
#include "coordinator/served_model.h"
#include "coordinator/status_snapshot.h"

namespace dovetail::coordinator {

struct CoordinatorOptions {
  bool serve_clients =
      true;  // HTTP and the client-facing gRPC services (eval and bench need neither)
  std::string worker_binary;  // path of dovetail-worker, for spawn_workers
  // Progress for people: called from the control threads, one at a time, whenever a state or a load
  // progress has changed.
  std::function<void(const StatusSnapshot&)> on_progress;
};

class Coordinator {
 public:
  // Reads the models' headers, rules and configuration; checks what can be checked without workers.
  // Listens and starts local workers (if configured). Everything started is stopped again if it
  // fails. ResourceExhausted: the budgets of several models are more than this machine has.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(const ServeConfig& config,
                                                            CoordinatorOptions options);
  ~Coordinator();  // Shutdown(0)

  // Waits until all models are ready. Returns the reason if that cannot happen (plan refused,
  // worker cannot load, a local worker that keeps dying), kDeadlineExceeded on timeout.
  absl::Status WaitReady(absl::Duration timeout);
  // Stops accepting, waits for running requests up to the timeout, stops workers and servers,
  // removes the run directory. Returns requests left unfinished.
  int Shutdown(absl::Duration drain_timeout);
  // Stops accepting and waits, without stopping the process (AdminService.Drain).
  int Drain(absl::Duration timeout);

  StatusSnapshot Status() const;
  // In the order of the configuration.
  ServedModel& model(size_t index = 0);
  const ServedModel& model(size_t index = 0) const;
  int http_port() const;
  int grpc_port() const;
  // Blocks until Drain(exit) was asked over gRPC, or Shutdown, or a fatal state of every model;
  // returns that state's status.
  absl::Status WaitStopped(std::function<bool()> should_stop);
  // True once Drain(exit) was asked over gRPC or Shutdown() began.
  bool exit_requested() const;

 private:
  Coordinator();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_COORDINATOR_H_
