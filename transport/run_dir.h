// RunDir: the directory through which processes of one job find each other's shared memory.
//
// It should lie on a tmpfs (default: /dev/shm/dovetail-<pid>-<random>). The coordinator creates it
// with an `id` file (random, also the proof that a worker sees the same directory) and holds a lock
// on it; workers open it. A coordinator that takes a directory over keeps its id, so that workers
// which outlived the last one find themselves at home. Names inside: id, lock, exchange-<epoch>,
// <worker>.weights, <worker>.kv ("cpu:0" becomes "cpu-0"), socket. Where a coordinator has several
// models, the names of what belongs to one begin with it: exchange-tiny-<epoch>, tiny%2Fcpu-0.kv.
//
// Immutable but for RemoveAll(). Locks are advisory (flock) and end with the process.
#ifndef DOVETAIL_TRANSPORT_RUN_DIR_H_
#define DOVETAIL_TRANSPORT_RUN_DIR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/posix.h"

namespace dovetail::transport {

class RunDir {
 public:
  // Coordinator's side: creates or takes over `path` (a leftover whose lock nobody holds is cleaned
  // of exchange files; segments stay, they may be reused). FailedPrecondition: another coordinator
  // holds it.
  static absl::StatusOr<std::unique_ptr<RunDir>> Create(const std::string& path);
  // Worker's side: waits up to `timeout_ms` for the id file. kDeadlineExceeded says what was
  // missing.
  static absl::StatusOr<std::unique_ptr<RunDir>> Open(const std::string& path, int timeout_ms);
  // A fresh path for a job on this machine; removes leftovers of dead jobs that used this scheme.
  static std::string DefaultPath();
  // The same under another parent directory than /dev/shm.
  static std::string DefaultPathUnder(const std::string& parent);
  ~RunDir() = default;

  const std::string& path() const { return path_; }
  const std::string& id() const { return id_; }
  // Of a worker by its full name (base/worker_name.h).
  std::string WeightsPath(absl::string_view worker) const;
  std::string KvPath(absl::string_view worker) const;
  // `model`: "" where it is the only one.
  std::string ExchangePath(uint64_t epoch, absl::string_view model = "") const;
  // The coordinator's Unix socket, where its port speaks TLS.
  std::string SocketPath() const;
  // Removes the files named above and then the directory, unless something foreign is left in it
  // (the coordinator, when the job ends).
  void RemoveAll();

 private:
  RunDir() = default;
  std::string path_;
  std::string id_;
  UniqueFd lock_;  // the coordinator's
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_RUN_DIR_H_
