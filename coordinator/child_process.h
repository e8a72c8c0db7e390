// ChildProcess: one spawned process with its output in a pipe and its end on a file descriptor.
//
// Owned by the thread that spawned it. The destructor kills and reaps what still runs.
#ifndef DOVETAIL_COORDINATOR_CHILD_PROCESS_H_
#define DOVETAIL_COORDINATOR_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/posix.h"

namespace dovetail::coordinator {

class ChildProcess {
 public:
  // Runs `binary` with stdin from /dev/null, stdout and stderr in one pipe, no other descriptor of
  // ours, default signals, and a process group of its own (Ctrl-C on the terminal is for the
  // parent, which ends its children in order).
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Spawn(
      const std::string& binary, const std::vector<std::string>& arguments);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Becomes readable when the process has ended; -1 where the kernel has no pidfd (before 5.3).
  int end_fd() const { return end_fd_.get(); }
  // Becomes readable when there is output; -1 after its end.
  int output_fd() const { return output_fd_.get(); }

  // What was printed since the last call, never waiting. Also kept in log_tail().
  std::string ReadOutput();
  const std::string& log_tail() const { return log_tail_; }

  void Signal(int signal);
  // Reaps the process if it has ended and says how: "exit status 3", "killed by signal 9 (Killed)".
  std::optional<std::string> TryReap();

 private:
  ChildProcess() = default;
  pid_t pid_ = -1;
  bool reaped_ = false;
  UniqueFd end_fd_;
  UniqueFd output_fd_;
  std::string log_tail_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHILD_PROCESS_H_
