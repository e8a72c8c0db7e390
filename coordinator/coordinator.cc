#include "coordinator/coordinator.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "base/cpu_topology.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "coordinator/cluster.h"
#include "coordinator/configured_rules.h"
#include "coordinator/http/http_server.h"
#include "coordinator/loaded_model.h"
#include "coordinator/local_devices.h"
#include "coordinator/plan_members.h"
#include "coordinator/request_metrics.h"
#include "coordinator/service/admin_service.h"
#include "coordinator/service/cluster_service.h"
#include "coordinator/service/grpc_server.h"
#include "coordinator/service/health_service.h"
#include "coordinator/service/inference_service.h"
#include "coordinator/supervisor.h"
#include "coordinator/system_metrics.h"
#include "model/memory_plan.h"
#include "transport/run_dir.h"
#include "transport/step_frame.h"

// Complete types for the services that the coordinator owns.
#include <grpcpp/impl/service_type.h>

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kStopPoll = absl::Milliseconds(200);
constexpr absl::Duration kListTimeout = absl::Seconds(1);
// From the end of the last request to the end of its connection.
constexpr absl::Duration kGrpcGrace = absl::Seconds(1);
constexpr int kMostAutoLanes = 8;
// Of KV blocks, until it was measured: what one core of any machine does.
constexpr double kCopiedBytesPerSecond = 4e9;

// What local workers dial when the server listens on `listen`.
std::string DialHost(const std::string& listen) {
  if (listen == "0.0.0.0" || listen == "localhost") return "127.0.0.1";
  if (listen == "::" || listen == "[::]") return "[::1]";
  const bool bare_ipv6 = listen.find(':') != std::string::npos && listen[0] != '[';
  return bare_ipv6 ? absl::StrCat("[", listen, "]") : listen;
}

int GrpcPort(const ServeConfig& config, bool serve_clients) {
  if (config.grpc_port != 0 || !serve_clients || config.port == 0) return config.grpc_port;
  return config.port + 1;
}

// Steps in flight with `lanes: auto`: one for each worker, and one for what lies between them.
int MostLanes(const ServeConfig& config) {
  return std::min<int>(kMostAutoLanes, static_cast<int>(config.workers.size()) + 1);
}

int64_t ModifiedSeconds(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_mtime) : 0;
}

const char* StateWord(ServingState state) {
  switch (state) {
    case ServingState::kWaitingForWorkers:
      return "waiting_for_workers";
    case ServingState::kLoading:
      return "loading";
    case ServingState::kReady:
      return "ok";
    case ServingState::kRecovering:
      return "recovering";
    case ServingState::kDraining:
      return "draining";
    case ServingState::kFailed:
      break;
  }
  return "failed";
}

bool IsLoopback(const std::string& listen) {
  return absl::StartsWith(listen, "127.") || listen == "::1" || listen == "localhost";
}

void LogLines(absl::string_view text) {
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) LogInfo(line);
}

}  // namespace

struct Coordinator::Impl {
  ServeConfig config;
  CoordinatorOptions options;
  const absl::Time start_time = absl::Now();
  LoadedModel model;
  std::unique_ptr<RuleSet> rules;
  StepShape shape;
  std::unique_ptr<transport::RunDir> run_dir;
  ApiKeys keys;
  RequestMetrics metrics;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<GenerationService> generation;
  std::unique_ptr<EmbeddingService> embeddings;
  std::unique_ptr<HealthService> health;
  std::unique_ptr<Cluster> cluster;
  std::unique_ptr<grpc::Service> cluster_service;
  std::unique_ptr<grpc::Service> inference_service;
  std::unique_ptr<grpc::Service> admin_service;
  std::unique_ptr<GrpcServer> grpc_server;
  std::unique_ptr<HttpServer> http_server;
  int http_port = 0;
  int grpc_port = 0;

  absl::Mutex shutdown_mutex;  // held for all of Shutdown()
  bool shut_down = false;      // under shutdown_mutex
  int unfinished = 0;          // under shutdown_mutex
  mutable absl::Mutex mutex;
  std::unique_ptr<Supervisor> supervisor ABSL_GUARDED_BY(mutex);
  bool draining ABSL_GUARDED_BY(mutex) = false;
  bool ended ABSL_GUARDED_BY(mutex) = false;  // exit was asked for, or Shutdown() began

  absl::Status ReadInputs();
  PlanInputs MakePlanInputs() const;
  void StartEngine();
  void StartCluster();
  absl::Status StartGrpc();
  absl::Status StartHttp();
  absl::Status StartSupervisor();
  void OnClusterChange(const ClusterSnapshot& snapshot);
  StatusSnapshot MakeStatus(ClusterSnapshot snapshot) const;
  HealthReport Health() const;
  std::string MetricsPage() const;
  int Drain(absl::Duration timeout);
  int Shutdown(absl::Duration drain_timeout);
  void RequestExit() {
    absl::MutexLock lock(&mutex);
    ended = true;
  }
};

absl::Status Coordinator::Impl::ReadInputs() {
  if (config.workers.empty()) return absl::InvalidArgumentError("`workers` must not be empty");
  DT_ASSIGN_OR_RETURN(model, OpenModel(config));
  DT_ASSIGN_OR_RETURN(std::optional<RuleSet> loaded, LoadConfiguredRules(config));
  if (loaded) rules = std::make_unique<RuleSet>(*std::move(loaded));
  DT_ASSIGN_OR_RETURN(shape, MakeStepShape(config, model.config));
  if (rules != nullptr) ApplyKvTypes(*rules, model.config.num_hidden_layers, &shape);
  DT_RETURN_IF_ERROR(CheckRules(MakePlanInputs(), config.workers));
  const int64_t kv_bytes = KvCacheBytes(model.config, shape);
  LogInfo(absl::StrFormat("model %s (%s), %.1f MB", model.name, model.config.architecture,
                          static_cast<double>(model.file->file_bytes()) / 1e6));
  LogInfo(absl::StrFormat("context %d tokens; KV cache %d tokens, %.1f MiB in all",
                          shape.context_length, shape.num_kv_blocks * kKvBlockTokens,
                          static_cast<double>(kv_bytes) / (1 << 20)));
  return absl::OkStatus();
}

PlanInputs Coordinator::Impl::MakePlanInputs() const {
  PlanInputs inputs;
  inputs.config = &model.config;
  inputs.file = model.file.get();
  inputs.rules = rules.get();
  inputs.run_dir = run_dir.get();
  inputs.memory = config.memory;
  inputs.shape = shape;
  return inputs;
}

void Coordinator::Impl::StartEngine() {
  EngineOptions engine_options;
  engine_options.shape = shape;
  engine_options.vocab_size = model.config.vocab_size;
  engine_options.hidden_size = model.config.hidden_size;
  engine_options.chunk_size = config.chunk_size;
  engine_options.max_queue = config.max_queue;
  engine_options.adaptive_lanes = config.lanes == 0;
  engine_options.lanes = config.lanes > 0 ? config.lanes : MostLanes(config);
  const uint64_t largest_frame = transport::MaxStepBytes(shape, model::RowShapeOf(model.config),
                                                         model.config.experts.count > 0);
  engine_options.lanes_on_loops = static_cast<int>(
      std::max<uint64_t>(1, static_cast<uint64_t>(model::kRingBytes) / largest_frame));
  engine_options.token_target = config.token_target;
  engine_options.preemption = config.preemption;
  engine_options.recovery_timeout = config.recovery_timeout;
  engine_options.cost.num_experts = model.config.experts.count;
  engine_options.cost.experts_used = model.config.experts.num_used;
  engine_options.cost.block_copy_seconds = static_cast<double>(KvCacheBytes(model.config, shape)) /
                                           shape.num_blocks_in_all() / kCopiedBytesPerSecond;
  for (const Op& op : model::OpsOf(model.config)) {
    engine_options.module_names.push_back(model::ModuleName(op));
  }
  // The engine has a pipeline only while there is a cluster.
  engine_options.on_pipeline_lost = [this](const absl::Status& reason) {
    cluster->OnPipelineLost(reason);
  };
  engine = std::make_unique<Engine>(engine_options);
  ChatFormatOptions parsers;
  parsers.tool_parser = config.tool_parser;
  parsers.reasoning_parser = config.reasoning_parser;
  generation = std::make_unique<GenerationService>(
      model.name, &model.config, model.tokenizer.get(), model.chat_template.get(), engine.get(),
      shape.context_length, config.max_new_tokens, parsers);
  generation->set_metrics(&metrics);
  embeddings = std::make_unique<EmbeddingService>(&model.config, model.tokenizer.get(),
                                                  engine.get(), shape.context_length);
}

void Coordinator::Impl::StartCluster() {
  health = std::make_unique<HealthService>(
      std::set<std::string>{"dovetail.v1.InferenceService", "dovetail.v1.AdminService",
                            absl::StrCat("model/", model.name)});
  ClusterOptions cluster_options;
  cluster_options.workers = config.workers;
  cluster_options.run_dir = run_dir.get();
  cluster_options.model_path = model.path;
  cluster_options.model_fingerprint = model.file->fingerprint();
  cluster_options.ring_bytes = static_cast<uint64_t>(model::kRingBytes);
  cluster_options.worker_timeout = config.worker_timeout;
  cluster_options.make_plan = [this](const std::vector<ClusterMember>& members) {
    absl::StatusOr<Plan> plan = PlanMembers(MakePlanInputs(), members);
    if (plan.ok()) LogLines(DescribePlan(*plan, model.config));
    return plan;
  };
  cluster_options.make_pipeline = [this](std::shared_ptr<transport::Exchange> exchange,
                                         const Plan& plan) {
    return MakeExchangePipeline(std::move(exchange), plan.route, plan.shape,
                                model.config.vocab_size, model.config.hidden_size);
  };
  cluster_options.set_pipeline = [this](std::unique_ptr<Pipeline> pipeline) {
    engine->SetPipeline(std::move(pipeline));
  };
  cluster_options.suspend_pipeline = [this](const absl::Status& reason) {
    engine->SuspendPipeline(reason);
  };
  cluster_options.clear_pipeline = [this](const absl::Status& reason) {
    engine->ClearPipeline(reason);
  };
  cluster = std::make_unique<Cluster>(
      std::move(cluster_options),
      [this](const ClusterSnapshot& snapshot) { OnClusterChange(snapshot); });
  if (options.on_progress) options.on_progress(MakeStatus(cluster->snapshot()));
}

absl::Status Coordinator::Impl::StartGrpc() {
  std::map<std::string, grpc::Service*> services;
  cluster_service = MakeClusterService(cluster.get());
  services["dovetail.v1.ClusterService"] = cluster_service.get();
  if (options.serve_clients) {
    InferenceOptions inference;
    inference.generation = generation.get();
    inference.embeddings = embeddings.get();
    inference.keys = &keys;
    inference.file_bytes = model.file->file_bytes();
    inference.request_timeout = config.request_timeout;
    inference_service = MakeInferenceService(inference);
    AdminHooks hooks;
    hooks.status = [this] { return MakeStatus(cluster->snapshot()); };
    hooks.plan = [this]() -> absl::StatusOr<Plan> {
      const auto plan = cluster->plan();
      if (plan == nullptr) return absl::UnavailableError("there is no plan yet");
      return *plan;
    };
    hooks.explain =
        [this](const std::string& name) -> absl::StatusOr<std::vector<ModuleExplanation>> {
      const auto plan = cluster->plan();
      if (plan == nullptr) return absl::UnavailableError("there is no plan yet");
      return ExplainPlan(*plan, rules.get(), name);
    };
    hooks.sequences = [this] { return engine->ListSequences(kListTimeout); };
    hooks.drain = [this](absl::Duration timeout) {
      return Drain(timeout > absl::ZeroDuration() ? timeout : config.drain_timeout);
    };
    hooks.request_exit = [this] { RequestExit(); };
    hooks.keys = &keys;
    admin_service = MakeAdminService(std::move(hooks));
    services["dovetail.v1.InferenceService"] = inference_service.get();
    services["dovetail.v1.AdminService"] = admin_service.get();
    services["grpc.health.v1.Health"] = health->service();
  }
  GrpcServerOptions grpc_options;
  grpc_options.listen = config.listen;
  grpc_options.port = GrpcPort(config, options.serve_clients);
  grpc_options.tls = config.tls;
  if (!config.tls.empty()) grpc_options.local_socket = run_dir->SocketPath();
  DT_ASSIGN_OR_RETURN(grpc_server, GrpcServer::Start(grpc_options, services));
  grpc_port = grpc_server->port();
  return absl::OkStatus();
}

absl::Status Coordinator::Impl::StartHttp() {
  if (!options.serve_clients) return absl::OkStatus();
  HttpServerOptions http_options;
  http_options.listen = config.listen;
  http_options.port = config.port;
  http_options.tls = config.tls;
  http_options.max_connections = config.max_connections;
  http_options.request_timeout = config.request_timeout;
  if (const int64_t files = RaiseFileLimit(); files < config.max_connections + 256) {
    LogWarn(absl::StrCat("this process may open ", files, " files, which is few for ",
                         config.max_connections, " connections (ulimit -n)"));
  }
  HttpApi api;
  api.generation = generation.get();
  api.embeddings = embeddings.get();
  api.engine = engine.get();
  api.health = [this] { return Health(); };
  api.metrics = [this] { return MetricsPage(); };
  api.keys = keys;
  api.model_name = model.name;
  api.model_created = ModifiedSeconds(model.path);
  api.facts.file_bytes = model.file->file_bytes();
  api.facts.fingerprint = model.file->fingerprint();
  api.facts.quantization = MainWeightType(*model.file);
  if (model.chat_template != nullptr) api.facts.chat_template = model.chat_template->source();
  api.context_length = shape.context_length;
  api.system_fingerprint = absl::StrCat("dovetail-cis1-", KvTypesText(model.config, shape));
  DT_ASSIGN_OR_RETURN(http_server, HttpServer::Start(http_options, std::move(api)));
  http_port = http_server->port();
  return absl::OkStatus();
}

absl::Status Coordinator::Impl::StartSupervisor() {
  if (!config.spawn_workers) return absl::OkStatus();
  SupervisorOptions supervisor_options;
  supervisor_options.worker_binary = options.worker_binary;
  supervisor_options.workers = config.workers;
  const std::string address = config.tls.empty()
                                  ? absl::StrCat(DialHost(config.listen), ":", grpc_port)
                                  : absl::StrCat("unix:", run_dir->SocketPath());
  const int threads = LocalThreads(config);
  std::map<std::string, std::string> cpus;
  const std::vector<std::vector<int>> own = LocalCpus(config, UsableCpus(ReadCpuTopology(), -1));
  for (size_t i = 0; i < own.size(); ++i) cpus[config.workers[i]] = absl::StrJoin(own[i], ",");
  supervisor_options.arguments = [this, address, threads, cpus](const std::string& worker) {
    std::vector<std::string> arguments = {
        "--name",      worker,           "--coordinator",    address,
        "--run-dir",   run_dir->path(),  "--threads",        absl::StrCat(threads),
        "--log-level", config.log_level, "--die-with-parent"};
    if (const auto it = cpus.find(worker); it != cpus.end() && !it->second.empty()) {
      arguments.insert(arguments.end(), {"--cpus", it->second});
    }
    return arguments;
  };
  supervisor_options.on_give_up = [this](const absl::Status& reason) { cluster->Fail(reason); };
  DT_ASSIGN_OR_RETURN(auto started, Supervisor::Start(std::move(supervisor_options)));
  absl::MutexLock lock(&mutex);
  supervisor = std::move(started);
  if (cluster->snapshot().state == ServingState::kReady) supervisor->NoteReady();
  return absl::OkStatus();
}

void Coordinator::Impl::OnClusterChange(const ClusterSnapshot& snapshot) {
  {
    absl::MutexLock lock(&mutex);
    const bool ready = snapshot.state == ServingState::kReady;
    health->SetServing(ready && !draining);
    if (ready && supervisor != nullptr) supervisor->NoteReady();
  }
  if (options.on_progress) options.on_progress(MakeStatus(snapshot));
}

StatusSnapshot Coordinator::Impl::MakeStatus(ClusterSnapshot snapshot) const {
  StatusSnapshot status;
  status.state = snapshot.state;
  status.message = std::move(snapshot.message);
  status.model = model.name;
  status.epoch = snapshot.epoch;
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_time);
  status.engine = engine->stats();
  status.workers = std::move(snapshot.workers);
  absl::MutexLock lock(&mutex);
  if (draining && status.state != ServingState::kFailed) status.state = ServingState::kDraining;
  return status;
}

HealthReport Coordinator::Impl::Health() const {
  ClusterSnapshot snapshot = cluster->snapshot();
  absl::MutexLock lock(&mutex);
  const ServingState state = draining && snapshot.state != ServingState::kFailed
                                 ? ServingState::kDraining
                                 : snapshot.state;
  return {state == ServingState::kReady, StateWord(state), std::move(snapshot.message)};
}

std::string Coordinator::Impl::MetricsPage() const {
  MetricsText text;
  WriteSystemMetrics(MakeStatus(cluster->snapshot()), &text);
  metrics.Write(&text);
  return text.text();
}

int Coordinator::Impl::Drain(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mutex);
    draining = true;
    health->SetServing(false);
  }
  generation->StopAccepting();
  embeddings->StopAccepting();
  return engine->WaitIdle(timeout);
}

int Coordinator::Impl::Shutdown(absl::Duration drain_timeout) {
  absl::MutexLock shutdown_lock(&shutdown_mutex);
  if (shut_down) return unfinished;
  shut_down = true;
  if (cluster != nullptr) unfinished = Drain(drain_timeout);
  Supervisor* children = nullptr;
  {
    absl::MutexLock lock(&mutex);
    ended = true;
    children = supervisor.get();
  }
  if (children != nullptr) children->ExpectExit();
  if (cluster != nullptr) cluster->Shutdown("the server is shutting down");
  if (http_server != nullptr) http_server->Stop();
  if (health != nullptr) health->Shutdown();
  if (children != nullptr) children->Stop();
  if (grpc_server != nullptr) grpc_server->Shutdown(kGrpcGrace);
  if (run_dir != nullptr) run_dir->RemoveAll();
  return unfinished;
}

Coordinator::Coordinator() : impl_(std::make_unique<Impl>()) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const ServeConfig& config,
                                                                CoordinatorOptions options) {
  // A return on the way destroys the coordinator, which stops what was started.
  auto coordinator = std::unique_ptr<Coordinator>(new Coordinator());
  Impl& impl = *coordinator->impl_;
  impl.config = config;
  impl.keys = ApiKeys(config.api_keys);
  impl.options = std::move(options);
  DT_RETURN_IF_ERROR(impl.ReadInputs());
  DT_ASSIGN_OR_RETURN(impl.run_dir, transport::RunDir::Create(config.run_dir.empty()
                                                                  ? transport::RunDir::DefaultPath()
                                                                  : config.run_dir));
  impl.StartEngine();
  impl.StartCluster();
  // HTTP first: of two servers on the same ports, the one that a person named is reported.
  DT_RETURN_IF_ERROR(impl.StartHttp());
  DT_RETURN_IF_ERROR(impl.StartGrpc());
  if (!IsLoopback(config.listen) && !impl.keys.required()) {
    LogWarn("there are no API keys: everybody who reaches these ports may use and stop the server");
  }
  LogInfo(absl::StrCat("listening on ", config.listen, ": ",
                       impl.http_port != 0 ? absl::StrCat("HTTP port ", impl.http_port, ", ") : "",
                       "gRPC port ", impl.grpc_port));
  DT_RETURN_IF_ERROR(impl.StartSupervisor());
  return coordinator;
}

Coordinator::~Coordinator() { Shutdown(absl::ZeroDuration()); }

absl::Status Coordinator::WaitReady(absl::Duration timeout) {
  return impl_->cluster->WaitReady(timeout);
}

int Coordinator::Shutdown(absl::Duration drain_timeout) { return impl_->Shutdown(drain_timeout); }

int Coordinator::Drain(absl::Duration timeout) { return impl_->Drain(timeout); }

StatusSnapshot Coordinator::Status() const { return impl_->MakeStatus(impl_->cluster->snapshot()); }

absl::StatusOr<Plan> Coordinator::CurrentPlan() const {
  const auto plan = impl_->cluster->plan();
  if (plan == nullptr) return absl::UnavailableError("there is no plan yet");
  return *plan;
}

Engine* Coordinator::engine() { return impl_->engine.get(); }
GenerationService* Coordinator::generation() { return impl_->generation.get(); }
const model::ModelConfig& Coordinator::config() const { return impl_->model.config; }
int Coordinator::http_port() const { return impl_->http_port; }
int Coordinator::grpc_port() const { return impl_->grpc_port; }

bool Coordinator::exit_requested() const {
  absl::MutexLock lock(&impl_->mutex);
  return impl_->ended;
}

absl::Status Coordinator::WaitStopped(std::function<bool()> should_stop) {
  while (true) {
    if (should_stop && should_stop()) return absl::OkStatus();
    {
      absl::MutexLock lock(&impl_->mutex);
      if (impl_->mutex.AwaitWithTimeout(absl::Condition(&impl_->ended), kStopPoll)) {
        return absl::OkStatus();
      }
    }
    const ClusterSnapshot snapshot = impl_->cluster->snapshot();
    if (snapshot.state == ServingState::kFailed) return snapshot.failure;
  }
}

}  // namespace dovetail::coordinator
