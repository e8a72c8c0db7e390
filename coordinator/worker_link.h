// WorkerLink: the coordinator's end of one worker's Attach stream, without gRPC in it.
//
// The gRPC reactor implements it, tests use a fake. Every call may come from the cluster's control
// thread at any time, also after the stream has ended (it then does nothing), and never waits.
#ifndef DOVETAIL_COORDINATOR_WORKER_LINK_H_
#define DOVETAIL_COORDINATOR_WORKER_LINK_H_

#include <string>

#include "absl/status/status.h"

namespace dovetail::v1 {
class WorkerCommand;
}  // namespace dovetail::v1

namespace dovetail::coordinator {

class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Queues a command. A worker that does not read loses its stream once the queue is full.
  virtual void Send(const v1::WorkerCommand& command) = 0;
  // Ends the stream with `status` after what was sent.
  virtual void Close(const absl::Status& status) = 0;
  // Ends the stream without waiting for anything: the worker is believed dead.
  virtual void Abandon(const absl::Status& status) = 0;
  // The address that the worker dials from, "" where there is none, as from a Unix socket.
  virtual std::string PeerHost() const { return ""; }
  // The last event was handled; the next may be read. Bounds what a worker can have waiting to one
  // event.
  virtual void Next() = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_WORKER_LINK_H_
