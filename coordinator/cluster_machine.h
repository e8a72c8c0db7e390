// ClusterMachine: the state machine that turns registered workers into a running pipeline, and a
// lost worker into an orderly new start.
//
//   every configured worker registered -> plan -> Load to each worker with ops -> all Loaded ->
//   epoch + 1, exchange file, Connect to all -> all Connected -> pipeline handed to the engine ->
//   ready.
//
// A planned worker that is lost ends the epoch: the exchange is aborted, the engine's requests are
// suspended, the other workers are disconnected but keep their weights. The reason that all are
// told names the edges that are closed with the worker (worker_edges.h), even where one of its
// peers had ended the epoch before. When it registers again it alone loads, a new epoch begins and
// the requests go on. A refused plan or a failed load is final: then they end with the reason.
//
// Pure logic: no threads, no clock, no gRPC. Owned by one thread (cluster.h), which passes the time
// in.
#ifndef DOVETAIL_COORDINATOR_CLUSTER_MACHINE_H_
#define DOVETAIL_COORDINATOR_CLUSTER_MACHINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/patience.h"
#include "coordinator/cluster_member.h"
#include "coordinator/pipeline.h"
#include "coordinator/placement/plan.h"
#include "coordinator/status_snapshot.h"
#include "coordinator/watched_pipeline.h"
#include "coordinator/worker_link.h"
#include "transport/exchange.h"
#include "transport/run_dir.h"

namespace dovetail::v1 {
class Register;
class WorkerEvent;
class WorkerFailure;
}  // namespace dovetail::v1

namespace dovetail::coordinator {

struct ClusterOptions {
  std::string model;                 // for messages and names of files; "" where it is the only one
  std::vector<std::string> workers;  // names that may register
  const transport::RunDir* run_dir = nullptr;  // borrowed
  std::string cluster_key;                     // of workers of other hosts; "": there are none
  std::string model_path;                      // as workers see it
  uint64_t model_fingerprint = 0;
  uint64_t ring_bytes = 0;
  absl::Duration worker_timeout = absl::Seconds(10);   // without a sign of life
  absl::Duration connect_timeout = absl::Seconds(10);  // from Connect to Connected

  // All are called on the control thread. `members` come in the order of `workers`.
  std::function<absl::StatusOr<Plan>(const std::vector<ClusterMember>& members)> make_plan;
  std::function<absl::StatusOr<std::unique_ptr<Pipeline>>(std::shared_ptr<transport::Exchange>,
                                                          const Plan&)>
      make_pipeline;
  std::function<void(std::unique_ptr<Pipeline>)> set_pipeline;
  // The pipeline is gone: another one will come, or (clear) none will. Suspended again while it is
  // gone: for a reason that is known better now.
  std::function<void(const absl::Status& reason)> suspend_pipeline;
  std::function<void(const absl::Status& reason)> clear_pipeline;
  // The state has to be seen now, before the requests of an epoch are touched: whoever got
  // UNAVAILABLE must not read "ready" afterwards. May be empty.
  std::function<void()> publish;
};

class ClusterMachine {
 public:
  explicit ClusterMachine(ClusterOptions options);

  void OnEvent(const std::shared_ptr<WorkerLink>& link, const v1::WorkerEvent& event,
               absl::Time now);
  void OnClosed(const std::shared_ptr<WorkerLink>& link, const absl::Status& reason,
                absl::Time now);
  // The engine met an error in the pipeline of `epoch`.
  void OnPipelineLost(uint64_t epoch, const absl::Status& reason, absl::Time now);
  // Loses workers that were silent for too long; starts what was put off.
  void Tick(absl::Time now);
  // How long until Tick() is due: while workers are attached several times per worker_timeout, so
  // that a pause of this process is not taken for their silence (base/patience.h).
  absl::Duration UntilNextTick(absl::Time now) const;
  // Cannot go on.
  void Fail(const absl::Status& reason);
  // Tells every worker to end.
  void Shutdown(const std::string& reason);

  ServingState state() const { return state_; }
  const std::string& message() const { return message_; }
  const absl::Status& failure() const { return failure_; }
  uint64_t epoch() const { return epoch_; }
  const std::shared_ptr<const Plan>& plan() const { return plan_; }
  std::vector<WorkerSnapshot> Workers() const;
  // Grows whenever state, message or load progress change.
  uint64_t revision() const { return revision_; }

 private:
  enum class Phase { kAbsent, kAttached, kLoading, kLoaded, kConnecting, kConnected };
  struct Worker {
    std::string name;
    Phase phase = Phase::kAbsent;
    std::shared_ptr<WorkerLink> link;  // null when absent
    bool known = false;                // registered at least once: `member` is set
    bool planned = false;              // owns ops of the plan
    bool had_edges = false;            // its process was in an epoch of the plan
    ClusterMember member;
    Patience silence{absl::InfiniteDuration()};     // since it was heard last
    Patience connecting{absl::InfiniteDuration()};  // of kConnecting
    uint64_t steps_before = 0;                      // of earlier processes
    uint64_t busy_before = 0;                       // microseconds
    WorkerSnapshot snapshot;
  };

  void HandleRegister(const std::shared_ptr<WorkerLink>& link, const v1::Register& message,
                      absl::Time now);
  void Attach(Worker& worker, const std::shared_ptr<WorkerLink>& link, ClusterMember member);
  void HandleWorkerEvent(Worker& worker, const v1::WorkerEvent& event, absl::Time now);
  void HandleFailure(Worker& worker, const v1::WorkerFailure& failure, absl::Time now);
  void LoseWorker(Worker& worker, const std::string& reason);
  std::string DescribeLoss(const Worker& worker, const std::string& reason) const;
  void Advance(absl::Time now);
  bool MakePlanIfComplete();
  void SendLoad(Worker& worker);
  void StartEpoch(absl::Time now);
  void StartServing();
  void BreakEpoch(const absl::Status& reason);
  // The next epoch comes after a pause, which grows while one after the other breaks soon.
  void PutOffNextEpoch(absl::Time now);
  void DropPlan();
  void UpdateState();
  Worker* FindByLink(const std::shared_ptr<WorkerLink>& link);
  bool AllPlanned(Phase phase) const;
  std::string ProgressMessage() const;
  std::string FullName(const Worker& worker) const;

  ClusterOptions options_;
  const std::string edge_key_;  // of all connections between hosts
  std::vector<Worker> workers_;
  ServingState state_ = ServingState::kWaitingForWorkers;
  std::string message_;
  absl::Status failure_;
  std::string last_loss_;  // why the last epoch ended
  bool was_ready_ = false;
  bool stopped_ = false;
  uint64_t revision_ = 0;

  std::shared_ptr<const Plan> plan_;
  uint64_t plan_id_ = 0;
  uint64_t epoch_ = 0;
  std::shared_ptr<transport::Exchange> exchange_;  // of the running epoch
  std::shared_ptr<PipelineWatch> watch_;           // of the pipeline that the engine has
  absl::Time epoch_since_ = absl::InfinitePast();  // the last one's beginning
  int epoch_losses_ = 0;                           // in a row, for the pause before the next epoch
  absl::Time earliest_epoch_ = absl::InfinitePast();
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CLUSTER_MACHINE_H_
