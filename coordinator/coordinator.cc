#include "coordinator/coordinator.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "base/cpu_topology.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/posix.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "coordinator/budget_check.h"
#include "coordinator/http/http_server.h"
#include "coordinator/model_directory.h"
#include "coordinator/request_metrics.h"
#include "coordinator/service/admin_service.h"
#include "coordinator/service/cluster_service.h"
#include "coordinator/service/grpc_server.h"
#include "coordinator/service/health_service.h"
#include "coordinator/service/inference_service.h"
#include "coordinator/system_metrics.h"
#include "transport/run_dir.h"

// Complete types for the services that the coordinator owns.
#include <grpcpp/impl/service_type.h>

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kStopPoll = absl::Milliseconds(200);
constexpr absl::Duration kListTimeout = absl::Seconds(1);
// From the end of the last request to the end of its connection.
constexpr absl::Duration kGrpcGrace = absl::Seconds(1);
constexpr char kInferenceService[] = "dovetail.v1.InferenceService";
constexpr char kAdminService[] = "dovetail.v1.AdminService";

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

bool HasOtherHosts(const ServeConfig& config) {
  const std::vector<ModelSettings> models = config.Models();
  return std::any_of(models.begin(), models.end(), [](const ModelSettings& model) {
    return model.LocalWorkers().size() < model.workers.size();
  });
}

std::string HealthNameOf(const ServedModel& model) { return absl::StrCat("model/", model.name()); }

}  // namespace

struct Coordinator::Impl {
  ServeConfig config;
  CoordinatorOptions options;
  const absl::Time start_time = absl::Now();
  std::unique_ptr<transport::RunDir> run_dir;
  ApiKeys keys;
  BudgetLedger ledger;
  std::vector<std::unique_ptr<ServedModel>> models;  // at least one
  ModelDirectory directory;
  std::unique_ptr<HealthService> health;
  std::unique_ptr<grpc::Service> cluster_service;
  std::unique_ptr<grpc::Service> inference_service;
  std::unique_ptr<grpc::Service> admin_service;
  std::unique_ptr<GrpcServer> grpc_server;
  std::unique_ptr<HttpServer> http_server;
  int http_port = 0;
  int grpc_port = 0;
  bool started = false;  // every model was

  absl::Mutex shutdown_mutex;  // held for all of Shutdown()
  bool shut_down = false;      // under shutdown_mutex
  int unfinished = 0;          // under shutdown_mutex
  absl::Mutex progress_mutex;  // held while on_progress is called
  mutable absl::Mutex mutex;
  bool draining ABSL_GUARDED_BY(mutex) = false;
  bool ended ABSL_GUARDED_BY(mutex) = false;  // exit was asked for, or Shutdown() began

  absl::Status OpenModels();
  absl::Status CheckMemory() const;
  void StartModels();
  absl::Status StartGrpc();
  absl::Status StartHttp();
  absl::Status StartWorkers();
  void TellOtherHosts() const;
  AdminHooks MakeAdminHooks();
  ServedModel& ModelOf(const ModelEntry& entry) const;
  absl::StatusOr<Cluster*> FindCluster(const std::string& name) const;
  absl::StatusOr<std::vector<ServedModel*>> FindAll(const std::string& name) const;
  void OnModelChange();
  void PublishHealth();
  void ShowProgress();
  StatusSnapshot StatusOf(const ServedModel& model) const;
  StatusSnapshot Status() const;
  HealthReport Health() const;
  std::string MetricsPage() const;
  int Drain(absl::Duration timeout);
  int Shutdown(absl::Duration drain_timeout);
  void RequestExit() {
    absl::MutexLock lock(&mutex);
    ended = true;
  }
};

absl::Status Coordinator::Impl::OpenModels() {
  const std::vector<ModelSettings> all = config.Models();
  for (const ModelSettings& settings : all) {
    const std::string label = all.size() > 1 ? ModelNameOf(settings) : "";
    DT_ASSIGN_OR_RETURN(auto model, ServedModel::Open(settings, label));
    models.push_back(std::move(model));
  }
  return absl::OkStatus();
}

// Several models are bound by their budgets; one alone takes what it finds.
absl::Status Coordinator::Impl::CheckMemory() const {
  if (models.size() == 1) return absl::OkStatus();
  int64_t available = static_cast<int64_t>(ReadMemoryInfo().available_bytes);
  std::vector<WorkerBudget> budgets;
  for (const auto& model : models) {
    available += model->HeldBytes(*run_dir);
    for (const auto& [worker, bytes] : model->settings().memory) {
      budgets.push_back({model->name(), worker, bytes});
    }
  }
  return CheckBudgets(budgets, {{kThisMachine, available}});
}

void Coordinator::Impl::StartModels() {
  std::set<std::string> services = {kInferenceService, kAdminService};
  for (const auto& model : models) services.insert(HealthNameOf(*model));
  health = std::make_unique<HealthService>(services);
  std::vector<ModelEntry> entries;
  for (const auto& model : models) {
    model->Start(run_dir.get(), &ledger, config.cluster_key, [this] { OnModelChange(); });
    entries.push_back(model->Entry());
  }
  directory = ModelDirectory(std::move(entries));
  started = true;
  ShowProgress();
}

ServedModel& Coordinator::Impl::ModelOf(const ModelEntry& entry) const {
  return *models[static_cast<size_t>(&entry - directory.models().data())];
}

absl::StatusOr<Cluster*> Coordinator::Impl::FindCluster(const std::string& name) const {
  if (name.empty() && models.size() == 1) return models[0]->cluster();
  std::vector<std::string> names;
  for (const auto& model : models) {
    if (model->name() == name) return model->cluster();
    names.push_back(model->name());
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name.empty() ? "a worker must say whose it is"
                                : absl::StrCat("there is no model `", name, "` here"),
                   ": start it with --model, one of ", absl::StrJoin(names, ", ")));
}

// The models that a request of an operator is about: the one that it names, or all.
absl::StatusOr<std::vector<ServedModel*>> Coordinator::Impl::FindAll(
    const std::string& name) const {
  std::vector<ServedModel*> found;
  if (name.empty()) {
    for (const auto& model : models) found.push_back(model.get());
    return found;
  }
  DT_ASSIGN_OR_RETURN(const ModelEntry* entry, directory.Find(name));
  found.push_back(&ModelOf(*entry));
  return found;
}

AdminHooks Coordinator::Impl::MakeAdminHooks() {
  AdminHooks hooks;
  hooks.status = [this](const std::string& name) -> absl::StatusOr<StatusSnapshot> {
    DT_ASSIGN_OR_RETURN(const std::vector<ServedModel*> asked, FindAll(name));
    std::vector<StatusSnapshot> snapshots;
    for (const ServedModel* model : asked) snapshots.push_back(StatusOf(*model));
    return CombineStatus(std::move(snapshots));
  };
  hooks.plan = [this](const std::string& name) -> absl::StatusOr<ModelPlan> {
    DT_ASSIGN_OR_RETURN(const ModelEntry* entry, directory.Find(name));
    DT_ASSIGN_OR_RETURN(Plan plan, ModelOf(*entry).CurrentPlan());
    return ModelPlan{entry->name, std::move(plan)};
  };
  hooks.explain = [this](
                      const std::string& name,
                      const std::string& module) -> absl::StatusOr<std::vector<ModuleExplanation>> {
    DT_ASSIGN_OR_RETURN(const ModelEntry* entry, directory.Find(name));
    return ModelOf(*entry).Explain(module);
  };
  hooks.sequences = [this](const std::string& name) -> absl::StatusOr<std::vector<ModelSequences>> {
    DT_ASSIGN_OR_RETURN(const std::vector<ServedModel*> asked, FindAll(name));
    std::vector<ModelSequences> lists;
    for (ServedModel* model : asked) {
      DT_ASSIGN_OR_RETURN(auto sequences, model->engine()->ListSequences(kListTimeout));
      lists.push_back({model->name(), std::move(sequences)});
    }
    return lists;
  };
  hooks.drain = [this](absl::Duration timeout) {
    return Drain(timeout > absl::ZeroDuration() ? timeout : config.drain_timeout);
  };
  hooks.request_exit = [this] { RequestExit(); };
  hooks.keys = &keys;
  return hooks;
}

absl::Status Coordinator::Impl::StartGrpc() {
  std::map<std::string, grpc::Service*> services;
  cluster_service =
      MakeClusterService([this](const std::string& model) { return FindCluster(model); });
  services["dovetail.v1.ClusterService"] = cluster_service.get();
  if (options.serve_clients) {
    InferenceOptions inference;
    inference.models = &directory;
    inference.keys = &keys;
    inference.request_timeout = config.request_timeout;
    inference_service = MakeInferenceService(inference);
    admin_service = MakeAdminService(MakeAdminHooks());
    services[kInferenceService] = inference_service.get();
    services[kAdminService] = admin_service.get();
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
  api.models = &directory;
  api.health = [this] { return Health(); };
  api.metrics = [this] { return MetricsPage(); };
  api.keys = keys;
  DT_ASSIGN_OR_RETURN(http_server, HttpServer::Start(http_options, std::move(api)));
  http_port = http_server->port();
  return absl::OkStatus();
}

// What a person has to start there.
void Coordinator::Impl::TellOtherHosts() const {
  const bool everywhere = config.listen == "0.0.0.0" || config.listen == "::";
  const std::string host = everywhere ? "THIS_HOST" : DialHost(config.listen);
  for (const auto& model : models) {
    for (const std::string& worker : model->settings().workers) {
      if (HostOf(worker).empty()) continue;
      const std::string flag =
          models.size() > 1 ? absl::StrCat(" --model ", model->name()) : std::string();
      LogInfo(absl::StrCat("on ", HostOf(worker), ": dovetail-worker --name ", worker, flag,
                           " --coordinator ", host, ":", grpc_port, " --cluster-key-file FILE"));
    }
  }
}

absl::Status Coordinator::Impl::StartWorkers() {
  TellOtherHosts();
  if (!config.spawn_workers) return absl::OkStatus();
  WorkerLaunch launch;
  launch.binary = options.worker_binary;
  launch.log_level = config.log_level;
  launch.address = config.tls.empty() ? absl::StrCat(DialHost(config.listen), ":", grpc_port)
                                      : absl::StrCat("unix:", run_dir->SocketPath());
  for (const auto& model : models) DT_RETURN_IF_ERROR(model->StartWorkers(launch));
  return absl::OkStatus();
}

void Coordinator::Impl::OnModelChange() {
  PublishHealth();
  ShowProgress();
}

void Coordinator::Impl::PublishHealth() {
  absl::MutexLock lock(&mutex);
  bool all = !draining;
  for (const auto& model : models) {
    const bool ready = model->cluster()->snapshot().state == ServingState::kReady;
    health->SetServing(HealthNameOf(*model), ready && !draining);
    all = all && ready;
  }
  for (const char* service : {"", kInferenceService, kAdminService}) {
    health->SetServing(service, all);
  }
}

void Coordinator::Impl::ShowProgress() {
  if (!options.on_progress) return;
  absl::MutexLock lock(&progress_mutex);
  options.on_progress(Status());
}

StatusSnapshot Coordinator::Impl::StatusOf(const ServedModel& model) const {
  StatusSnapshot status = model.Status();
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_time);
  absl::MutexLock lock(&mutex);
  if (draining && status.state != ServingState::kFailed) {
    // Workers that are let go look like ones that have yet to load.
    if (status.state == ServingState::kLoading) status.message.clear();
    status.state = ServingState::kDraining;
  }
  return status;
}

StatusSnapshot Coordinator::Impl::Status() const {
  std::vector<StatusSnapshot> snapshots;
  for (const auto& model : models) snapshots.push_back(StatusOf(*model));
  return CombineStatus(std::move(snapshots));
}

HealthReport Coordinator::Impl::Health() const {
  const StatusSnapshot status = Status();
  HealthReport report{status.state == ServingState::kReady, StateWord(status.state),
                      status.message};
  for (const StatusSnapshot& model : status.models) {
    report.models.emplace_back(model.model, StateWord(model.state));
  }
  return report;
}

std::string Coordinator::Impl::MetricsPage() const {
  MetricsText text;
  WriteSystemMetrics(Status(), &text);
  std::vector<ModelMetrics> metrics;
  for (const auto& model : models) metrics.push_back({model->name(), &model->metrics()});
  WriteRequestMetrics(metrics, &text);
  return text.text();
}

int Coordinator::Impl::Drain(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mutex);
    draining = true;
    health->SetServing(false);
  }
  const absl::Time deadline = absl::Now() + timeout;
  for (const auto& model : models) model->StopAccepting();
  int left = 0;
  for (const auto& model : models) left += model->engine()->WaitIdle(deadline - absl::Now());
  return left;
}

int Coordinator::Impl::Shutdown(absl::Duration drain_timeout) {
  absl::MutexLock shutdown_lock(&shutdown_mutex);
  if (shut_down) return unfinished;
  shut_down = true;
  if (started) unfinished = Drain(drain_timeout);
  RequestExit();
  if (started) {
    for (const auto& model : models) model->StopCluster("the server is shutting down");
  }
  if (http_server != nullptr) http_server->Stop();
  if (health != nullptr) health->Shutdown();
  for (const auto& model : models) model->StopWorkers();
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
  DT_RETURN_IF_ERROR(impl.OpenModels());
  DT_ASSIGN_OR_RETURN(impl.run_dir, transport::RunDir::Create(config.run_dir.empty()
                                                                  ? transport::RunDir::DefaultPath()
                                                                  : config.run_dir));
  DT_RETURN_IF_ERROR(impl.CheckMemory());
  impl.StartModels();
  // HTTP first: of two servers on the same ports, the one that a person named is reported.
  DT_RETURN_IF_ERROR(impl.StartHttp());
  DT_RETURN_IF_ERROR(impl.StartGrpc());
  if (IsLoopback(config.listen) && HasOtherHosts(config)) {
    LogWarn(absl::StrCat("workers of other hosts cannot reach ", config.listen,
                         ": set `listen` to an address of the network between them"));
  }
  if (!IsLoopback(config.listen) && !impl.keys.required()) {
    LogWarn("there are no API keys: everybody who reaches these ports may use and stop the server");
  }
  LogInfo(absl::StrCat("listening on ", config.listen, ": ",
                       impl.http_port != 0 ? absl::StrCat("HTTP port ", impl.http_port, ", ") : "",
                       "gRPC port ", impl.grpc_port));
  DT_RETURN_IF_ERROR(impl.StartWorkers());
  return coordinator;
}

Coordinator::~Coordinator() { Shutdown(absl::ZeroDuration()); }

absl::Status Coordinator::WaitReady(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  // What has failed is said at once, whatever the others do.
  for (const auto& model : impl_->models) {
    DT_RETURN_IF_ERROR(model->cluster()->snapshot().failure);
  }
  for (const auto& model : impl_->models) {
    DT_RETURN_IF_ERROR(model->cluster()->WaitReady(deadline - absl::Now()));
  }
  return absl::OkStatus();
}

int Coordinator::Shutdown(absl::Duration drain_timeout) { return impl_->Shutdown(drain_timeout); }

int Coordinator::Drain(absl::Duration timeout) { return impl_->Drain(timeout); }

StatusSnapshot Coordinator::Status() const { return impl_->Status(); }

ServedModel& Coordinator::model(size_t index) { return *impl_->models.at(index); }
const ServedModel& Coordinator::model(size_t index) const { return *impl_->models.at(index); }
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
    absl::Status failure;
    const bool all_failed =
        std::all_of(impl_->models.begin(), impl_->models.end(), [&](const auto& model) {
          const ClusterSnapshot snapshot = model->cluster()->snapshot();
          failure.Update(snapshot.failure);
          return snapshot.state == ServingState::kFailed;
        });
    if (all_failed) return failure;
  }
}

}  // namespace dovetail::coordinator
