// Supervisor: starts the worker processes of this machine, starts them again when they die, and
// ends them all.
//
// One thread owns every child: it spawns them, forwards what they print to stderr, and sleeps on
// their pidfds. That thread lives until the last child is reaped, which --die-with-parent needs
// (the kernel ties a child to the thread that made it). No signal handler is involved.
//
// A worker that dies is started again at once, then after pauses that double. One that dies
// `give_up_deaths` times within `give_up_window` without having become ready in between is given
// up: on_give_up gets its last exit status and the end of its output, and nothing is started any
// more.
#ifndef DOVETAIL_COORDINATOR_SUPERVISOR_H_
#define DOVETAIL_COORDINATOR_SUPERVISOR_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace dovetail::coordinator {

struct SupervisorOptions {
  std::string worker_binary;
  std::vector<std::string> workers;  // names: one process each
  // Arguments of the process of `worker`, without argv[0].
  std::function<std::vector<std::string>(const std::string& worker)> arguments;
  // Called on the supervisor's thread, at most once.
  std::function<void(const absl::Status&)> on_give_up;
  int give_up_deaths = 5;
  absl::Duration give_up_window = absl::Seconds(30);
  absl::Duration first_pause = absl::Milliseconds(500);  // before the second restart in a row
  absl::Duration longest_pause = absl::Seconds(5);
  absl::Duration kill_after = absl::Seconds(5);  // from SIGTERM to SIGKILL
};

class Supervisor {
 public:
  // Starts every worker. Fails, with none left running, where the binary cannot be run.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Start(SupervisorOptions options);
  ~Supervisor();  // Stop()
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // The workers serve: their deaths so far are forgiven. Thread-safe.
  void NoteReady();
  // No restarts from now on: the workers were told to end. Thread-safe.
  void ExpectExit();
  // SIGTERM to every child, SIGKILL to what is left after kill_after; returns when all are reaped.
  void Stop();

 private:
  Supervisor();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SUPERVISOR_H_
