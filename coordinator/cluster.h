// Cluster: the control thread that owns the state machine of the workers (cluster_machine.h), and
// its inbox.
//
// Everything that happens (a worker's event, the end of its stream, an error that the engine met)
// is a message in the inbox; the thread sleeps until one comes or a heartbeat is overdue. The inbox
// is bounded by construction: a link has at most one event and one end of stream in it.
//
// All public members are thread-safe. What ClusterOptions borrows outlives the Cluster, and so do
// the links' owners: the gRPC server is stopped first.
#ifndef DOVETAIL_COORDINATOR_CLUSTER_H_
#define DOVETAIL_COORDINATOR_CLUSTER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/cluster_machine.h"

namespace dovetail::coordinator {

struct ClusterSnapshot {
  ServingState state = ServingState::kWaitingForWorkers;
  std::string message;
  absl::Status failure;  // of kFailed
  uint64_t epoch = 0;
  std::vector<WorkerSnapshot> workers;
};

class Cluster {
 public:
  // `on_change` is called on the control thread when state, message or load progress have changed.
  Cluster(ClusterOptions options, std::function<void(const ClusterSnapshot&)> on_change);
  ~Cluster();  // Shutdown

  void OnEvent(std::shared_ptr<WorkerLink> link, v1::WorkerEvent event);
  void OnClosed(std::shared_ptr<WorkerLink> link, const absl::Status& reason);
  // The engine met an error in the pipeline that it was given last. Called on the engine's thread.
  void OnPipelineLost(const absl::Status& reason);
  // The state becomes kFailed (a local worker that keeps dying).
  void Fail(const absl::Status& reason);
  // Ends the epoch, tells the workers to end, joins the thread. Requests still running end with
  // kUnavailable.
  void Shutdown(const std::string& reason);

  ClusterSnapshot snapshot() const;
  std::shared_ptr<const Plan> plan() const;  // null before there is one
  // Ok when ready; the reason when failed; Cancelled when shut down; DeadlineExceeded.
  absl::Status WaitReady(absl::Duration timeout) const;

 private:
  using Message = std::function<void(ClusterMachine&, absl::Time now)>;

  ClusterOptions AddHooks(ClusterOptions options);
  void Post(Message message);
  void Run();
  void Publish();

  std::function<void(const ClusterSnapshot&)> on_change_;
  std::atomic<uint64_t> served_epoch_{0};  // of the pipeline that the engine has or had last
  ClusterMachine machine_;                 // of the control thread
  uint64_t seen_revision_ = 0;

  mutable absl::Mutex mutex_;
  std::deque<Message> inbox_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::string stop_reason_ ABSL_GUARDED_BY(mutex_);
  ClusterSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Plan> plan_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex join_mutex_;
  std::thread thread_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CLUSTER_H_
