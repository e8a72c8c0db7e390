#include "coordinator/cluster_machine.h"

#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/worker_name.h"
#include "coordinator/epoch_exchange.h"
#include "coordinator/worker_edges.h"
#include "dovetail/v1/cluster.pb.h"
#include "transport/edge_listener.h"
#include "transport/worker_plan.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kFirstRetry = absl::Milliseconds(100);
constexpr absl::Duration kLongestRetry = absl::Seconds(5);
constexpr absl::Duration kStableEpoch = absl::Seconds(10);

// A worker is told to speak at least three times per timeout, so that one late heartbeat is not the
// end, and often enough that what it reports is news.
absl::Duration HeartbeatInterval(absl::Duration timeout) {
  return std::min(absl::Milliseconds(500), timeout / 3);
}

uint64_t RandomId() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::string RandomBytes(size_t count) {
  std::random_device device;
  std::string bytes;
  for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(device()));
  return bytes;
}

absl::StatusCode CodeOf(const v1::WorkerFailure& failure) {
  const auto code = static_cast<absl::StatusCode>(failure.code());
  const bool known = failure.code() >= 1 && failure.code() <= 16;
  return known ? code : absl::StatusCode::kUnknown;
}

}  // namespace

ClusterMachine::ClusterMachine(ClusterOptions options)
    : options_(std::move(options)), edge_key_(RandomBytes(transport::kEdgeKeyBytes)) {
  DT_CHECK(!options_.workers.empty());
  for (const std::string& name : options_.workers) {
    Worker& worker = workers_.emplace_back();
    worker.name = name;
    worker.snapshot.name = name;
  }
  UpdateState();
}

void ClusterMachine::OnEvent(const std::shared_ptr<WorkerLink>& link, const v1::WorkerEvent& event,
                             absl::Time now) {
  if (stopped_) {
    link->Close(absl::UnavailableError("the coordinator is shutting down"));
    return;
  }
  if (Worker* worker = FindByLink(link); worker != nullptr) {
    worker->silence.Renew();
    HandleWorkerEvent(*worker, event, now);
  } else if (event.event_case() == v1::WorkerEvent::kRegister) {
    HandleRegister(link, event.register_(), now);
  } else {
    link->Close(absl::InvalidArgumentError("the first message of a worker must be `register`"));
  }
  link->Next();
  Advance(now);
}

void ClusterMachine::OnClosed(const std::shared_ptr<WorkerLink>& link, const absl::Status& reason,
                              absl::Time now) {
  Worker* worker = FindByLink(link);
  if (worker == nullptr || stopped_) return;
  LoseWorker(*worker, std::string(reason.message()));
  Advance(now);
}

void ClusterMachine::OnPipelineLost(uint64_t epoch, const absl::Status& reason, absl::Time now) {
  if (exchange_ == nullptr || epoch != epoch_ || stopped_) return;  // an older one: known already
  PutOffNextEpoch(now);
  BreakEpoch(absl::UnavailableError(absl::StrCat("the pipeline broke: ", reason.message())));
  Advance(now);
}

void ClusterMachine::PutOffNextEpoch(absl::Time now) {
  epoch_losses_ = now - epoch_since_ > kStableEpoch ? 0 : epoch_losses_ + 1;
  earliest_epoch_ = now + std::min(kLongestRetry, kFirstRetry * (1 << std::min(epoch_losses_, 8)));
}

void ClusterMachine::Tick(absl::Time now) {
  if (stopped_) return;
  if (exchange_ != nullptr && watch_ == nullptr && !exchange_->failure().ok()) {
    // The coordinator's own edge to another host; later the engine would see it.
    const absl::Status failure = exchange_->failure();
    LogWarn(absl::StrCat("epoch ", epoch_, " did not come up: ", failure.message()));
    PutOffNextEpoch(now);
    BreakEpoch(failure);
  }
  for (Worker& worker : workers_) {
    if (worker.link == nullptr) continue;
    if (worker.silence.Exhausted(now)) {
      LoseWorker(worker, absl::StrCat("no sign of life for ",
                                      absl::FormatDuration(options_.worker_timeout)));
    } else if (worker.phase == Phase::kConnecting && worker.connecting.Exhausted(now)) {
      LoseWorker(worker, absl::StrCat("did not connect within ",
                                      absl::FormatDuration(options_.connect_timeout)));
    }
  }
  Advance(now);
}

absl::Duration ClusterMachine::UntilNextTick(absl::Time now) const {
  absl::Duration next = absl::InfiniteDuration();
  if (stopped_) return next;
  for (const Worker& worker : workers_) {
    if (worker.link == nullptr) continue;
    next = std::min(next, worker.silence.UntilNextLook());
    if (worker.phase == Phase::kConnecting) {
      next = std::min(next, worker.connecting.UntilNextLook());
    }
  }
  if (failure_.ok() && exchange_ == nullptr && AllPlanned(Phase::kLoaded)) {
    next = std::min(next, earliest_epoch_ - now);
  }
  return std::max(next, absl::ZeroDuration());
}

void ClusterMachine::Fail(const absl::Status& reason) {
  if (!failure_.ok() || stopped_) return;
  failure_ = reason;
  LogDebug(absl::StrCat("cannot go on: ", reason.message()));  // whoever runs this reports it
  const absl::Status unavailable =
      absl::UnavailableError(absl::StrCat("the server cannot go on: ", reason.message()));
  BreakEpoch(unavailable);
  UpdateState();
  if (options_.publish) options_.publish();
  options_.clear_pipeline(unavailable);
}

void ClusterMachine::Shutdown(const std::string& reason) {
  if (stopped_) return;
  BreakEpoch(absl::UnavailableError(reason));
  options_.clear_pipeline(absl::UnavailableError(reason));
  stopped_ = true;
  v1::WorkerCommand command;
  command.mutable_shutdown()->set_reason(reason);
  for (Worker& worker : workers_) {
    if (worker.link == nullptr) continue;
    worker.link->Send(command);
    worker.link->Close(absl::OkStatus());
    worker.link = nullptr;
    worker.phase = Phase::kAbsent;
  }
}

std::vector<WorkerSnapshot> ClusterMachine::Workers() const {
  std::vector<WorkerSnapshot> snapshots;
  for (const Worker& worker : workers_) {
    snapshots.push_back(worker.snapshot);
    snapshots.back().attached = worker.link != nullptr;
  }
  return snapshots;
}

void ClusterMachine::HandleRegister(const std::shared_ptr<WorkerLink>& link,
                                    const v1::Register& message, absl::Time now) {
  absl::StatusOr<ClusterMember> member = CheckRegister(
      message, {options_.workers, options_.run_dir->id(), options_.cluster_key}, link->PeerHost());
  if (!member.ok()) {
    LogWarn(absl::StrCat("refused a worker: ", member.status().message()));
    link->Close(member.status());
    return;
  }
  auto worker = std::find_if(workers_.begin(), workers_.end(),
                             [&](const Worker& w) { return w.name == message.worker(); });
  DT_CHECK(worker != workers_.end());
  if (worker->link != nullptr) {
    // The same process that dials again has lost its old stream. Another one with the same name may
    // only take over from a worker that has been silent for a while.
    const bool silent = worker->silence.Waited(now) > options_.worker_timeout * 2 / 3;
    if (member->incarnation != worker->member.incarnation && !silent) {
      link->Close(absl::AlreadyExistsError(absl::StrCat(
          "worker ", FullName(*worker), " is already attached (pid ", worker->member.pid, ")")));
      return;
    }
    LoseWorker(*worker, "a newer stream of this worker took its place");
  }
  Attach(*worker, link, std::move(*member));
}

void ClusterMachine::Attach(Worker& worker, const std::shared_ptr<WorkerLink>& link,
                            ClusterMember member) {
  const bool same_device = !worker.known || SameDevice(worker.member, member);
  if (worker.known && worker.member.incarnation != member.incarnation) {
    // A new process counts from zero; what is shown goes on from where the old one was.
    worker.steps_before = worker.snapshot.steps;
    worker.busy_before = worker.snapshot.busy_microseconds;
  }
  worker.link = link;
  worker.phase = Phase::kAttached;
  worker.known = true;
  worker.had_edges = false;
  worker.silence = Patience(options_.worker_timeout);
  worker.member = std::move(member);
  WorkerSnapshot& snapshot = worker.snapshot;
  snapshot.isa = worker.member.isa;
  snapshot.num_threads = worker.member.device.num_threads;
  snapshot.pid = worker.member.pid;
  snapshot.read_bandwidth_gb_per_s = worker.member.read_bandwidth_gb_per_s;
  snapshot.load_bytes_done = 0;
  v1::WorkerCommand command;
  command.mutable_registered()->set_heartbeat_interval_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(HeartbeatInterval(options_.worker_timeout))));
  command.mutable_registered()->set_heartbeat_timeout_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.worker_timeout)));
  command.mutable_registered()->set_edge_key(edge_key_);
  link->Send(command);
  LogInfo(absl::StrCat("worker ", FullName(worker), " attached: pid ", worker.member.pid, ", ",
                       snapshot.num_threads, " threads, ", snapshot.isa,
                       worker.member.description.empty() ? "" : ", ", worker.member.description));
  if (worker.planned && !same_device) DropPlan();
  ++revision_;
}

void ClusterMachine::HandleWorkerEvent(Worker& worker, const v1::WorkerEvent& event,
                                       absl::Time now) {
  WorkerSnapshot& snapshot = worker.snapshot;
  switch (event.event_case()) {
    case v1::WorkerEvent::kHeartbeat: {
      snapshot.steps = worker.steps_before + event.heartbeat().steps();
      snapshot.busy_microseconds = worker.busy_before + event.heartbeat().busy_microseconds();
      snapshot.resident_bytes = event.heartbeat().resident_bytes();
      snapshot.peak_resident_bytes = event.heartbeat().peak_resident_bytes();
      snapshot.segments.clear();
      for (const v1::SegmentTime& segment : event.heartbeat().segments()) {
        snapshot.segments.push_back(
            {static_cast<int>(segment.segment()), segment.steps(), segment.busy_microseconds()});
      }
      v1::WorkerCommand ack;
      ack.mutable_heartbeat_ack();
      worker.link->Send(ack);
      break;
    }
    case v1::WorkerEvent::kLoadProgress:
      if (event.load_progress().plan_id() != plan_id_) break;
      snapshot.load_bytes_done = event.load_progress().bytes_done();
      snapshot.load_bytes_total = event.load_progress().bytes_total();
      ++revision_;
      break;
    case v1::WorkerEvent::kLoaded:
      if (event.loaded().plan_id() != plan_id_ || worker.phase != Phase::kLoading) break;
      worker.phase = Phase::kLoaded;
      snapshot.load_bytes_done = snapshot.load_bytes_total = event.loaded().weight_bytes();
      ++revision_;
      break;
    case v1::WorkerEvent::kConnected:
      if (event.connected().epoch() != epoch_ || worker.phase != Phase::kConnecting) break;
      worker.phase = Phase::kConnected;
      break;
    case v1::WorkerEvent::kFailure:
      HandleFailure(worker, event.failure(), now);
      break;
    default:  // a second Register, or nothing at all
      LoseWorker(worker, "it sent a message out of turn");
  }
}

void ClusterMachine::HandleFailure(Worker& worker, const v1::WorkerFailure& failure,
                                   absl::Time now) {
  if (worker.phase == Phase::kLoading) {
    Fail(absl::Status(
        CodeOf(failure),
        absl::StrCat("worker ", FullName(worker), " cannot load its share: ", failure.message())));
    return;
  }
  if (worker.phase == Phase::kConnecting && CodeOf(failure) == absl::StatusCode::kUnimplemented) {
    Fail(absl::FailedPreconditionError(
        absl::StrCat("worker ", FullName(worker), " cannot connect: ", failure.message())));
    return;
  }
  // Outside of an epoch, of an earlier one, or about an exchange that was aborted, it speaks of
  // what is over already.
  const bool stale = worker.phase < Phase::kConnecting ||
                     (failure.epoch() != 0 && failure.epoch() != epoch_) ||
                     CodeOf(failure) == absl::StatusCode::kAborted;
  if (stale) return;
  PutOffNextEpoch(now);
  LoseWorker(worker, failure.message());
}

void ClusterMachine::LoseWorker(Worker& worker, const std::string& reason) {
  const std::string text = DescribeLoss(worker, reason);
  const absl::Status status = absl::UnavailableError(text);
  worker.link->Abandon(status);
  worker.link = nullptr;
  const bool in_epoch = worker.phase >= Phase::kConnecting;
  worker.phase = Phase::kAbsent;
  ++worker.snapshot.restarts;
  LogWarn(text);
  last_loss_ = text;
  if (in_epoch) {
    BreakEpoch(status);
  } else if (worker.had_edges && failure_.ok()) {
    options_.suspend_pipeline(status);  // what ended the epoch before may be this loss
  }
  ++revision_;
}

std::string ClusterMachine::DescribeLoss(const Worker& worker, const std::string& reason) const {
  std::string text = absl::StrCat("worker ", FullName(worker), " was lost: ", reason);
  if (!worker.had_edges) return text;
  const auto edges = EdgesOf(plan_->route, plan_->shape.gpu_links, worker.name);
  absl::StrAppend(&text, "; its edges are closed: ", absl::StrJoin(edges, ", "));
  return text;
}

void ClusterMachine::Advance(absl::Time now) {
  if (failure_.ok() && !stopped_ && MakePlanIfComplete()) {
    for (Worker& worker : workers_) {
      if (worker.planned && worker.phase == Phase::kAttached) SendLoad(worker);
    }
    if (AllPlanned(Phase::kLoaded) && now >= earliest_epoch_) StartEpoch(now);
    if (exchange_ != nullptr && watch_ == nullptr && AllPlanned(Phase::kConnected)) {
      StartServing();
    }
  }
  UpdateState();
}

bool ClusterMachine::MakePlanIfComplete() {
  if (plan_ != nullptr) return true;
  std::vector<ClusterMember> members;
  for (const Worker& worker : workers_) {
    if (worker.link == nullptr) return false;
    members.push_back(worker.member);
  }
  absl::StatusOr<Plan> plan = options_.make_plan(members);
  if (!plan.ok()) {
    Fail(plan.status());
    return false;
  }
  plan_id_ = RandomId();
  for (Worker& worker : workers_) {
    worker.planned = false;
    for (const PlacedWorker& placed : plan->workers) {
      if (placed.device.name != worker.name) continue;
      worker.planned = !placed.ops.empty();
      worker.snapshot.planned_bytes = static_cast<uint64_t>(placed.memory.total());
      worker.snapshot.mapped_bytes = static_cast<uint64_t>(placed.memory.weights_mapped);
      worker.snapshot.load_bytes_total = static_cast<uint64_t>(placed.memory.weights_packed);
    }
  }
  plan_ = std::make_shared<const Plan>(*std::move(plan));
  ++revision_;
  return true;
}

void ClusterMachine::SendLoad(Worker& worker) {
  transport::WorkerPlan plan;
  plan.plan_id = plan_id_;
  plan.model_path = options_.model_path;
  plan.model_fingerprint = options_.model_fingerprint;
  plan.route = plan_->route;
  plan.step_shape = plan_->shape;
  plan.ring_bytes = options_.ring_bytes;
  v1::WorkerCommand command;
  transport::ToProto(plan, command.mutable_load()->mutable_plan());
  worker.link->Send(command);
  worker.phase = Phase::kLoading;
}

void ClusterMachine::StartEpoch(absl::Time now) {
  EpochExchangeSpec spec;
  spec.epoch = epoch_ + 1;
  spec.path = options_.run_dir->ExchangePath(spec.epoch, options_.model);
  spec.ring_bytes = options_.ring_bytes;
  spec.gpu_links = plan_->shape.gpu_links;
  spec.edge_key = edge_key_;
  spec.connect_timeout = options_.connect_timeout;
  for (const Worker& worker : workers_) spec.addresses[worker.name] = worker.member.data_address;
  absl::StatusOr<EpochExchange> made = MakeEpochExchange(plan_->route, spec);
  if (!made.ok()) {
    Fail(Annotate(made.status(), "cannot make the exchange of the workers"));
    return;
  }
  epoch_ = spec.epoch;
  epoch_since_ = now;
  exchange_ = std::move(made->exchange);
  for (Worker& worker : workers_) {
    if (!worker.planned) continue;
    v1::WorkerCommand command;
    TellWorker(spec, made->remote, worker.name, command.mutable_connect());
    worker.link->Send(command);
    worker.phase = Phase::kConnecting;
    worker.had_edges = true;
    worker.connecting = Patience(options_.connect_timeout);
  }
}

void ClusterMachine::StartServing() {
  auto pipeline = options_.make_pipeline(exchange_, *plan_);
  if (!pipeline.ok()) {
    Fail(Annotate(pipeline.status(), "cannot connect to the workers"));
    return;
  }
  watch_ = std::make_shared<PipelineWatch>();
  options_.set_pipeline(MakeWatchedPipeline(*std::move(pipeline), watch_));
  LogInfo(absl::StrCat(options_.model, options_.model.empty() ? "" : " ", "ready: epoch ", epoch_));
  was_ready_ = true;
}

void ClusterMachine::BreakEpoch(const absl::Status& reason) {
  if (exchange_ == nullptr) return;
  const std::shared_ptr<transport::Exchange> exchange = std::exchange(exchange_, nullptr);
  const std::shared_ptr<PipelineWatch> watch = std::exchange(watch_, nullptr);
  last_loss_ = std::string(reason.message());
  v1::WorkerCommand command;
  command.mutable_disconnect()->set_epoch(epoch_);
  for (Worker& worker : workers_) {
    if (worker.phase < Phase::kConnecting) continue;
    worker.link->Send(command);
    worker.phase = Phase::kLoaded;
  }
  ++revision_;
  UpdateState();
  if (options_.publish) options_.publish();
  // The reason first, so that whatever the engine meets from here on reads as it; then the abort,
  // so that neither the engine nor a worker waits on the other end of a ring.
  if (watch != nullptr) watch->SetReason(reason);
  exchange->Abort();
  if (watch != nullptr) options_.suspend_pipeline(reason);
  ::unlink(options_.run_dir->ExchangePath(epoch_, options_.model).c_str());
}

void ClusterMachine::DropPlan() {
  BreakEpoch(absl::UnavailableError("a worker came back as another device: planning again"));
  plan_ = nullptr;
  for (Worker& worker : workers_) {
    worker.planned = false;
    worker.had_edges = false;
    if (worker.link != nullptr) worker.phase = Phase::kAttached;
  }
}

void ClusterMachine::UpdateState() {
  ServingState state = ServingState::kLoading;
  std::string message;
  std::vector<std::string> absent;
  for (const Worker& worker : workers_) {
    if (worker.link == nullptr && (plan_ == nullptr || worker.planned)) {
      absent.push_back(worker.name);
    }
  }
  if (!failure_.ok()) {
    state = ServingState::kFailed;
    message = std::string(failure_.message());
  } else if (!absent.empty()) {
    state = was_ready_ ? ServingState::kRecovering : ServingState::kWaitingForWorkers;
    message = absl::StrCat("waiting for ", absl::StrJoin(absent, ", "));
    if (!last_loss_.empty()) message = absl::StrCat(last_loss_, "; ", message);
  } else if (watch_ != nullptr) {
    state = ServingState::kReady;
  } else {
    message = exchange_ != nullptr ? "connecting the workers" : ProgressMessage();
  }
  if (state == state_ && message == message_) return;
  state_ = state;
  message_ = std::move(message);
  ++revision_;
}

ClusterMachine::Worker* ClusterMachine::FindByLink(const std::shared_ptr<WorkerLink>& link) {
  for (Worker& worker : workers_) {
    if (worker.link == link) return &worker;
  }
  return nullptr;
}

bool ClusterMachine::AllPlanned(Phase phase) const {
  if (plan_ == nullptr) return false;
  return std::all_of(workers_.begin(), workers_.end(), [phase](const Worker& worker) {
    return !worker.planned || worker.phase == phase;
  });
}

std::string ClusterMachine::ProgressMessage() const {
  std::vector<std::string> parts;
  for (const Worker& worker : workers_) {
    if (!worker.planned || worker.snapshot.load_bytes_total == 0) continue;
    const uint64_t percent =
        worker.snapshot.load_bytes_done * 100 / worker.snapshot.load_bytes_total;
    parts.push_back(absl::StrCat(worker.name, " ", std::min<uint64_t>(percent, 100), " %"));
  }
  return absl::StrCat("loading the model: ", absl::StrJoin(parts, ", "));
}

std::string ClusterMachine::FullName(const Worker& worker) const {
  return FullWorkerName(options_.model, worker.name);
}

}  // namespace dovetail::coordinator
