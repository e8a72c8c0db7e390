#include "coordinator/service/admin_service.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/log.h"
#include "coordinator/service/call_auth.h"
#include "dovetail/v1/admin.grpc.pb.h"
#include "model/model_config.h"
#include "transport/status_convert.h"
#include "transport/worker_plan.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxWaitingDrains = 16;

v1::ServingState ToProto(ServingState state) {
  switch (state) {
    case ServingState::kWaitingForWorkers:
      return v1::SERVING_STATE_WAITING_FOR_WORKERS;
    case ServingState::kLoading:
      return v1::SERVING_STATE_LOADING;
    case ServingState::kReady:
      return v1::SERVING_STATE_READY;
    case ServingState::kRecovering:
      return v1::SERVING_STATE_RECOVERING;
    case ServingState::kDraining:
      return v1::SERVING_STATE_DRAINING;
    case ServingState::kFailed:
      return v1::SERVING_STATE_FAILED;
  }
  return v1::SERVING_STATE_UNSPECIFIED;
}

void FillWorker(const WorkerSnapshot& worker, v1::WorkerStatus* proto) {
  proto->set_name(worker.name);
  proto->set_model(worker.model);
  proto->set_attached(worker.attached);
  proto->set_isa(worker.isa);
  proto->set_num_threads(static_cast<uint32_t>(worker.num_threads));
  proto->set_pid(worker.pid);
  proto->set_load_bytes_done(worker.load_bytes_done);
  proto->set_load_bytes_total(worker.load_bytes_total);
  proto->set_steps(worker.steps);
  proto->set_busy_microseconds(worker.busy_microseconds);
  proto->set_resident_bytes(worker.resident_bytes);
  proto->set_peak_resident_bytes(worker.peak_resident_bytes);
  for (const SegmentSnapshot& segment : worker.segments) {
    v1::SegmentStatus* out = proto->add_segments();
    out->set_index(static_cast<uint32_t>(segment.index));
    out->set_steps(segment.steps);
    out->set_busy_microseconds(segment.busy_microseconds);
  }
  proto->set_planned_bytes(worker.planned_bytes);
  proto->set_mapped_bytes(worker.mapped_bytes);
  proto->set_read_bandwidth_gb_per_s(worker.read_bandwidth_gb_per_s);
  proto->set_restarts(static_cast<uint32_t>(worker.restarts));
}

void FillStatus(const StatusSnapshot& status, v1::GetStatusResponse* proto) {
  proto->set_state(ToProto(status.state));
  proto->set_message(status.message);
  proto->set_model(status.model);
  proto->set_epoch(status.epoch);
  proto->set_running_sequences(static_cast<uint32_t>(status.engine.running));
  proto->set_waiting_sequences(static_cast<uint32_t>(status.engine.waiting));
  proto->set_kv_blocks_total(static_cast<uint32_t>(status.engine.kv_blocks_total));
  proto->set_kv_blocks_used(static_cast<uint32_t>(status.engine.kv_blocks_used));
  proto->set_prompt_tokens(status.engine.prompt_tokens);
  proto->set_generated_tokens(status.engine.generated_tokens);
  proto->set_steps(status.engine.steps);
  proto->set_preemptions(status.engine.preemptions);
  proto->set_lanes(static_cast<uint32_t>(status.engine.decode_lanes));
  proto->set_swap_blocks_total(static_cast<uint32_t>(status.engine.swap_blocks_total));
  proto->set_swap_blocks_used(static_cast<uint32_t>(status.engine.swap_blocks_used));
  proto->set_recoveries(status.engine.recoveries);
  proto->set_predicted_wait_seconds(status.engine.predicted_wait_seconds);
  proto->set_kv_blocks_cached(static_cast<uint32_t>(status.engine.kv_blocks_cached));
  proto->set_prefix_queried_tokens(status.engine.prefix_queried_tokens);
  proto->set_prefix_cached_tokens(status.engine.prefix_cached_tokens);
  proto->set_uptime_seconds(status.uptime_seconds);
  for (const WorkerSnapshot& worker : status.workers) FillWorker(worker, proto->add_workers());
  for (const StatusSnapshot& model : status.models) FillStatus(model, proto->add_models());
}

void FillPlan(const Plan& plan, const std::string& model, v1::GetPlanResponse* proto) {
  proto->set_model(model);
  for (const PlacedModule& module : plan.modules) {
    v1::PlannedModule* out = proto->add_modules();
    out->set_name(module.module);
    out->set_worker(module.device);
    out->set_rule(module.rule ? module.rule->location() : "auto");
    out->set_bytes(static_cast<uint64_t>(module.stored_bytes));
    for (const Member& member : module.members) {
      v1::RouteMember* member_out = out->add_members();
      member_out->set_worker(member.worker);
      member_out->set_share(member.share);
    }
  }
  for (const PlacedWorker& worker : plan.workers) {
    v1::PlannedWorker* out = proto->add_workers();
    out->set_name(worker.device.name);
    out->set_capacity_bytes(static_cast<uint64_t>(worker.device.memory_bytes));
    out->set_weights_stored_bytes(static_cast<uint64_t>(worker.memory.weights_stored));
    out->set_weights_packed_bytes(static_cast<uint64_t>(worker.memory.weights_packed));
    out->set_weights_mapped_bytes(static_cast<uint64_t>(worker.memory.weights_mapped));
    out->set_kv_bytes(static_cast<uint64_t>(worker.memory.kv));
    out->set_workspace_bytes(
        static_cast<uint64_t>(worker.memory.workspace + worker.memory.staging));
    out->set_communication_bytes(static_cast<uint64_t>(worker.memory.communication));
    out->set_runtime_bytes(static_cast<uint64_t>(worker.memory.runtime));
  }
  for (const Segment& segment : plan.route) transport::ToProto(segment, proto->add_route());
  transport::ToProto(plan.shape, proto->mutable_step_shape());
}

void FillExplanations(const std::vector<ModuleExplanation>& modules,
                      v1::ExplainPlacementResponse* proto) {
  for (const ModuleExplanation& module : modules) {
    v1::ModuleExplanation* out = proto->add_modules();
    out->set_name(module.module);
    out->set_worker(module.worker);
    out->set_rule(module.rule);
    for (const std::string& rule : module.shadowed) out->add_shadowed_rules(rule);
  }
}

void FillSequences(const ModelSequences& list, v1::ListSequencesResponse* proto) {
  for (const SequenceInfo& sequence : list.sequences) {
    v1::SequenceStatus* out = proto->add_sequences();
    out->set_model(list.model);
    out->set_id(sequence.id);
    out->set_tenant(sequence.tenant);
    out->set_running(sequence.running);
    out->set_lane(static_cast<uint32_t>(std::max(0, sequence.lane)));
    out->set_prompt_tokens(static_cast<uint32_t>(sequence.prompt_tokens));
    out->set_generated_tokens(static_cast<uint32_t>(sequence.generated_tokens));
    out->set_computed_tokens(static_cast<uint32_t>(sequence.computed_tokens));
    out->set_kv_blocks(static_cast<uint32_t>(sequence.kv_blocks));
    out->set_preemptions(static_cast<uint32_t>(sequence.preemptions));
    out->set_age_seconds(absl::ToDoubleSeconds(sequence.age));
    out->set_priority(sequence.priority);
  }
}

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  explicit AdminServiceImpl(AdminHooks hooks)
      : hooks_(std::move(hooks)), drainer_([this] { RunDrains(); }) {}

  ~AdminServiceImpl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    drainer_.join();
  }

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    const absl::StatusOr<StatusSnapshot> status = hooks_.status(request->model());
    if (status.ok()) FillStatus(*status, response);
    reactor->Finish(transport::ToGrpcStatus(status.status()));
    return reactor;
  }

  grpc::ServerUnaryReactor* GetPlan(grpc::CallbackServerContext* context,
                                    const v1::GetPlanRequest* request,
                                    v1::GetPlanResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    const absl::StatusOr<ModelPlan> plan = hooks_.plan(request->model());
    if (plan.ok()) FillPlan(plan->plan, plan->model, response);
    reactor->Finish(transport::ToGrpcStatus(plan.status()));
    return reactor;
  }

  grpc::ServerUnaryReactor* ExplainPlacement(grpc::CallbackServerContext* context,
                                             const v1::ExplainPlacementRequest* request,
                                             v1::ExplainPlacementResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    const auto modules = hooks_.explain(request->model(), request->module());
    absl::Status status = modules.status();
    if (status.ok() && modules->empty()) {
      status = absl::NotFoundError(
          absl::StrCat("the model has no module `", request->module().substr(0, 200), "`"));
    }
    if (status.ok()) FillExplanations(*modules, response);
    reactor->Finish(transport::ToGrpcStatus(status));
    return reactor;
  }

  grpc::ServerUnaryReactor* ListSequences(grpc::CallbackServerContext* context,
                                          const v1::ListSequencesRequest* request,
                                          v1::ListSequencesResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    const auto models = hooks_.sequences(request->model());
    if (models.ok()) {
      for (const ModelSequences& model : *models) FillSequences(model, response);
    }
    reactor->Finish(transport::ToGrpcStatus(models.status()));
    return reactor;
  }

  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const v1::SetLogLevelRequest* request,
                                        v1::SetLogLevelResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    const absl::Status status = dovetail::SetLogLevel(request->level());
    if (status.ok()) LogInfo(absl::StrCat("the log level is now ", request->level()));
    reactor->Finish(transport::ToGrpcStatus(status));
    return reactor;
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (Refused(*context, reactor)) return reactor;
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      reactor->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    } else if (drains_.size() >= kMaxWaitingDrains) {
      reactor->Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many drains"));
    } else {
      // The request and the response live until the reactor has finished.
      drains_.push_back(
          {reactor, absl::Milliseconds(request->timeout_ms()), request->exit(), response});
    }
    return reactor;
  }

 private:
  // Finishes the call of somebody who may not make it.
  bool Refused(const grpc::CallbackServerContext& context, grpc::ServerUnaryReactor* reactor) {
    const absl::Status status = TenantOf(context, hooks_.keys).status();
    if (!status.ok()) reactor->Finish(transport::ToGrpcStatus(status));
    return !status.ok();
  }

  struct PendingDrain {
    grpc::ServerUnaryReactor* reactor;
    absl::Duration timeout;
    bool exit;
    v1::DrainResponse* response;
  };

  void RunDrains() {
    while (true) {
      PendingDrain drain;
      {
        absl::MutexLock lock(&mutex_);
        auto awake = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
          return stopping_ || !drains_.empty();
        };
        mutex_.Await(absl::Condition(&awake));
        if (drains_.empty()) return;
        drain = drains_.front();
        drains_.pop_front();
      }
      drain.response->set_unfinished_sequences(static_cast<uint32_t>(hooks_.drain(drain.timeout)));
      drain.reactor->Finish(grpc::Status::OK);
      if (drain.exit) hooks_.request_exit();
    }
  }

  const AdminHooks hooks_;
  absl::Mutex mutex_;
  std::deque<PendingDrain> drains_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread drainer_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(AdminHooks hooks) {
  return std::make_unique<AdminServiceImpl>(std::move(hooks));
}

}  // namespace dovetail::coordinator
