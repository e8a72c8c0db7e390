// EdgeListener: where a worker's process waits for the connections of edges from or to other hosts.
//
// Whoever connects says first which edge of which epoch it is an end of, and proves with the job's
// key that it belongs to the job (EdgeHello, docs/wire_format.md); then it waits for one byte,
// which the worker sends when it wants that edge. A connection may come before it is wanted, since
// all workers are told of an epoch at about the same time: it is kept for a while. What says
// nothing, something else, or has another key is closed; nothing of it is kept.
//
// A thread of its own looks at all connections that have not said everything. Await() may be called
// by any number of threads.
#ifndef DOVETAIL_TRANSPORT_EDGE_LISTENER_H_
#define DOVETAIL_TRANSPORT_EDGE_LISTENER_H_

#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/posix.h"
#include "transport/exchange.h"
#include "transport/tcp_socket.h"

namespace dovetail::transport {

inline constexpr size_t kEdgeKeyBytes = 32;
inline constexpr size_t kMaxEdgeName = 63;  // of an end

// Which edge of which epoch; `key` has kEdgeKeyBytes bytes.
struct EdgeId {
  std::string key;
  uint64_t epoch = 0;
  std::string from;
  std::string to;
  EdgeKind kind = EdgeKind::kSteps;
  bool operator==(const EdgeId&) const = default;
  std::string name() const;  // "cpu:0 -> host-b/cpu:0", gathered rows as "... (rows)"
};

// Connects to a listener and waits until it wants this edge.
absl::StatusOr<UniqueFd> DialEdge(const EdgeId& edge, const TcpAddress& address,
                                  absl::Duration timeout, StopFn stop);

class EdgeListener {
 public:
  static absl::StatusOr<std::unique_ptr<EdgeListener>> Start(const TcpAddress& address);
  ~EdgeListener();

  int port() const { return port_; }
  // The only key that is let in from now on, of kEdgeKeyBytes bytes; before, nobody is.
  void SetKey(const std::string& key);
  // The connection of that edge, as soon as it is there.
  absl::StatusOr<UniqueFd> Await(const EdgeId& edge, absl::Duration timeout, StopFn stop);

 private:
  struct Caller {  // that has not said everything
    UniqueFd socket;
    std::string said;
    absl::Time since;
  };
  struct Arrived {
    EdgeId edge;
    UniqueFd socket;
    absl::Time since;
  };
  EdgeListener() = default;
  void Run();
  void Accept();
  // False: nothing more is to be expected of it.
  bool Hear(Caller* caller);
  void Forget(absl::Time now);
  UniqueFd TakeLocked(const EdgeId& edge);  // invalid: it is not there

  UniqueFd listener_;
  UniqueFd wake_;  // an eventfd: the thread should end
  int port_ = 0;
  std::list<Caller> callers_;  // the thread's
  std::mutex mutex_;
  std::condition_variable arrival_;
  std::string key_;             // guarded by mutex_
  std::list<Arrived> arrived_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_EDGE_LISTENER_H_
