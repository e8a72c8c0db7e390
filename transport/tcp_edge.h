// TcpEdge: this process's end of an edge whose other end is on another host.
//
// Each end has a ring in its own memory, of which the process sees the side that it would have on
// one host: it sends into it or receives from it as always (shm_ring.h). A thread of the edge
// carries the bytes from the one ring by TCP to the other. So a sender does not wait for the
// network while there is room, an epoch's end wakes every waiter as always, and messages are as
// they are on one host. What the receiver answers once (TensorReceiver::SetAnswer) goes the other
// way.
//
// The thread makes the connection as well, so that all edges of a process come up at once. When it
// fails to, or the connection breaks, `broken` is called once, with a status that names the edge.
// `bell` and `aborted` are of the exchange that has the edge, and outlive it.
#ifndef DOVETAIL_TRANSPORT_TCP_EDGE_H_
#define DOVETAIL_TRANSPORT_TCP_EDGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/posix.h"
#include "transport/edge_listener.h"
#include "transport/ring_bytes.h"
#include "transport/shm_ring.h"
#include "transport/tcp_socket.h"

namespace dovetail::transport {

struct TcpEdgeOptions {
  EdgeId edge;
  bool sends = false;       // this process is the edge's sender
  bool has_answer = false;  // the receiver will answer: an edge beside which there may be a link
  uint64_t ring_bytes = 0;  // a power of two
  DoorbellState* bell = nullptr;  // of this process
  const std::atomic<uint32_t>* aborted = nullptr;
  // Makes the connection; `stop` as in tcp_socket.h. Called on the edge's thread.
  std::function<absl::StatusOr<UniqueFd>(StopFn stop)> connect;
  std::function<void()> up;
  std::function<void(const absl::Status& status)> broken;
};

class TcpEdge {
 public:
  static absl::StatusOr<std::unique_ptr<TcpEdge>> Start(TcpEdgeOptions options);
  ~TcpEdge();  // closes the connection; what was not carried yet is lost

  const EdgeId& edge() const { return options_.edge; }
  bool sends() const { return options_.sends; }
  const RingView& ring() const { return ring_; }

 private:
  explicit TcpEdge(TcpEdgeOptions options) : options_(std::move(options)) {}
  void Run();
  absl::Status Connect();
  absl::Status CarryOut();
  absl::Status CarryIn();
  absl::Status HearAnswer(RingSource* source);
  absl::Status SendAnswerOnceThere();
  bool stopped() const { return stop_.load(std::memory_order_acquire); }

  const TcpEdgeOptions options_;
  MemoryMap memory_;        // the ring
  DoorbellState own_bell_;  // the thread's
  RingView ring_;
  std::atomic<bool> stop_{false};
  bool answered_ = false;  // the thread's: the answer was carried
  std::mutex mutex_;       // of making the socket and shutting it down; once made it stays
  UniqueFd socket_;
  std::thread thread_;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_TCP_EDGE_H_
