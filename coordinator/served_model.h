// ServedModel: one model of a coordinator, with all that is its own: headers, rules and the shape
// of its steps, the engine and what is built on it, the cluster of its workers and, if they are
// local, their processes.
//
// Open() reads, Start() makes it take requests (which are refused with kUnavailable until its
// workers are there), StartWorkers() starts these. Stopping is in parts too, because the servers
// that all models share are stopped in between. What has no `const` is called by one thread, the
// coordinator's, but for the events of workers, which come to cluster().
#ifndef DOVETAIL_COORDINATOR_SERVED_MODEL_H_
#define DOVETAIL_COORDINATOR_SERVED_MODEL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/budget_check.h"
#include "coordinator/cluster.h"
#include "coordinator/config.h"
#include "coordinator/embedding.h"
#include "coordinator/engine.h"
#include "coordinator/generation.h"
#include "coordinator/loaded_model.h"
#include "coordinator/model_directory.h"
#include "coordinator/placement/explain.h"
#include "coordinator/plan_members.h"
#include "coordinator/request_metrics.h"
#include "coordinator/status_snapshot.h"
#include "coordinator/supervisor.h"
#include "transport/run_dir.h"

namespace dovetail::coordinator {

// How the processes of local workers are started; the same for all models.
struct WorkerLaunch {
  std::string binary;   // path of dovetail-worker
  std::string address;  // that they dial
  std::string log_level;
};

class ServedModel {
 public:
  // Reads headers and rules and checks what can be checked without workers. `label` is the model's
  // name where there are several, else "".
  static absl::StatusOr<std::unique_ptr<ServedModel>> Open(const ModelSettings& settings,
                                                           const std::string& label);
  ~ServedModel();

  // `run_dir` and `ledger`, where several models claim their budgets, are borrowed. `on_change` is
  // called on the model's control thread when its state or load progress have changed.
  void Start(const transport::RunDir* run_dir, BudgetLedger* ledger, const std::string& cluster_key,
             std::function<void()> on_change);
  absl::Status StartWorkers(const WorkerLaunch& launch);

  // Refuses new requests with kUnavailable from now on.
  void StopAccepting();
  // Its workers are told to end, and what still runs ends with kUnavailable. After Start().
  void StopCluster(const std::string& reason);
  // The processes of its workers, if it started any, are gone when this returns.
  void StopWorkers();

  const std::string& name() const { return model_.name; }
  const ModelSettings& settings() const { return settings_; }
  const model::ModelConfig& config() const { return model_.config; }
  const RequestMetrics& metrics() const { return metrics_; }
  Engine* engine() { return engine_.get(); }
  GenerationService* generation() { return generation_.get(); }  // of no_vocab models: token ids
  Cluster* cluster() { return cluster_.get(); }                  // null before Start()
  // What the APIs see of it. After Start().
  ModelEntry Entry() const;

  // Of memory, by workers that an earlier coordinator left in `run_dir`: they go on using it.
  int64_t HeldBytes(const transport::RunDir& run_dir) const;

  // All below: any thread, after Start().
  StatusSnapshot Status() const;             // without what the coordinator adds to it
  absl::StatusOr<Plan> CurrentPlan() const;  // Unavailable before there is one
  absl::StatusOr<std::vector<ModuleExplanation>> Explain(const std::string& module) const;

 private:
  explicit ServedModel(const ModelSettings& settings, const std::string& label)
      : settings_(settings), label_(label) {}
  absl::Status Read();
  PlanInputs MakePlanInputs() const;
  EngineOptions MakeEngineOptions();
  void StartEngine();
  ClusterOptions MakeClusterOptions();
  absl::Status ClaimBudgets(const std::vector<ClusterMember>& members);
  void OnClusterChange(const ClusterSnapshot& snapshot);

  const ModelSettings settings_;
  const std::string label_;
  LoadedModel model_;
  std::unique_ptr<RuleSet> rules_;
  StepShape shape_;
  const transport::RunDir* run_dir_ = nullptr;
  std::string cluster_key_;
  BudgetLedger* ledger_ = nullptr;
  RequestMetrics metrics_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<GenerationService> generation_;
  std::unique_ptr<EmbeddingService> embeddings_;
  std::function<void()> on_change_;
  std::unique_ptr<Cluster> cluster_;

  absl::Mutex mutex_;
  std::unique_ptr<Supervisor> supervisor_ ABSL_GUARDED_BY(mutex_);
  bool failure_told_ = false;  // control thread
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVED_MODEL_H_
