#include "coordinator/cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "dovetail/v1/cluster.pb.h"

namespace dovetail::coordinator {

Cluster::Cluster(ClusterOptions options, std::function<void(const ClusterSnapshot&)> on_change)
    : on_change_(std::move(on_change)), machine_(AddHooks(std::move(options))) {
  seen_revision_ = machine_.revision();  // the caller knows the first state
  Publish();
  thread_ = std::thread([this] { Run(); });
}

Cluster::~Cluster() { Shutdown("the coordinator is shutting down"); }

void Cluster::OnEvent(std::shared_ptr<WorkerLink> link, v1::WorkerEvent event) {
  Post([link = std::move(link), event = std::move(event)](ClusterMachine& machine, absl::Time now) {
    machine.OnEvent(link, event, now);
  });
}

void Cluster::OnClosed(std::shared_ptr<WorkerLink> link, const absl::Status& reason) {
  Post([link = std::move(link), reason](ClusterMachine& machine, absl::Time now) {
    machine.OnClosed(link, reason, now);
  });
}

void Cluster::OnPipelineLost(const absl::Status& reason) {
  // A pipeline is always cleared, which the engine confirms, before the next one is set: the epoch
  // is the right one.
  const uint64_t epoch = served_epoch_.load();
  Post([epoch, reason](ClusterMachine& machine, absl::Time now) {
    machine.OnPipelineLost(epoch, reason, now);
  });
}

void Cluster::Fail(const absl::Status& reason) {
  Post([reason](ClusterMachine& machine, absl::Time) { machine.Fail(reason); });
}

void Cluster::Shutdown(const std::string& reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) stop_reason_ = reason;
    stopping_ = true;
  }
  absl::MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

ClusterSnapshot Cluster::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

std::shared_ptr<const Plan> Cluster::plan() const {
  absl::MutexLock lock(&mutex_);
  return plan_;
}

absl::Status Cluster::WaitReady(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  auto decided = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopped_ || snapshot_.state == ServingState::kReady ||
           snapshot_.state == ServingState::kFailed;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&decided), timeout)) {
    return absl::DeadlineExceededError(
        absl::StrCat("not ready after ", absl::FormatDuration(timeout), ": ", snapshot_.message));
  }
  if (snapshot_.state == ServingState::kFailed) return snapshot_.failure;
  if (stopped_) return absl::CancelledError("the coordinator was shut down");
  return absl::OkStatus();
}

ClusterOptions Cluster::AddHooks(ClusterOptions options) {
  options.set_pipeline =
      [this, set = std::move(options.set_pipeline)](std::unique_ptr<Pipeline> pipeline) {
        served_epoch_.store(pipeline->epoch());
        set(std::move(pipeline));
      };
  options.publish = [this] { Publish(); };
  return options;
}

void Cluster::Post(Message message) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return;
  inbox_.push_back(std::move(message));
}

void Cluster::Run() {
  std::deque<Message> batch;
  bool stopping = false;
  std::string stop_reason;
  while (!stopping) {
    const absl::Duration until_tick = machine_.UntilNextTick(absl::Now());
    {
      absl::MutexLock lock(&mutex_);
      auto awake = [this]()
                       ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !inbox_.empty(); };
      mutex_.AwaitWithTimeout(absl::Condition(&awake), until_tick);
      batch.swap(inbox_);
      stopping = stopping_;
      stop_reason = stop_reason_;
    }
    // Messages before timeouts: a heartbeat that has come counts, however late this thread is.
    for (Message& message : batch) message(machine_, absl::Now());
    batch.clear();
    if (stopping) {
      machine_.Shutdown(stop_reason);
    } else {
      machine_.Tick(absl::Now());
    }
    Publish();
  }
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  inbox_.clear();
}

void Cluster::Publish() {
  ClusterSnapshot snapshot;
  snapshot.state = machine_.state();
  snapshot.message = machine_.message();
  snapshot.failure = machine_.failure();
  snapshot.epoch = machine_.epoch();
  snapshot.workers = machine_.Workers();
  {
    absl::MutexLock lock(&mutex_);
    snapshot_ = snapshot;
    plan_ = machine_.plan();
  }
  if (machine_.revision() == seen_revision_) return;
  seen_revision_ = machine_.revision();
  if (on_change_) on_change_(snapshot);
}

}  // namespace dovetail::coordinator
