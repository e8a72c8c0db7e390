#include "coordinator/served_model.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/cpu_topology.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/worker_name.h"
#include "coordinator/configured_rules.h"
#include "coordinator/local_devices.h"
#include "coordinator/placement/streaming.h"
#include "model/memory_plan.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {
namespace {

// Of KV blocks, until it was measured: what one core of any machine does.
constexpr double kCopiedBytesPerSecond = 4e9;

// Steps in flight with `lanes: auto`: one for each worker, and one for what lies between them.
int64_t ModifiedSeconds(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_mtime) : 0;
}

void LogLines(absl::string_view text) {
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) LogInfo(line);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Open(const ModelSettings& settings,
                                                               const std::string& label) {
  std::unique_ptr<ServedModel> model(new ServedModel(settings, label));
  absl::Status status = model->Read();
  if (!status.ok()) return label.empty() ? status : Annotate(status, label);
  return model;
}

ServedModel::~ServedModel() = default;

absl::Status ServedModel::Read() {
  if (settings_.workers.empty()) return absl::InvalidArgumentError("`workers` must not be empty");
  DT_ASSIGN_OR_RETURN(model_, OpenModel(settings_));
  DT_ASSIGN_OR_RETURN(std::optional<RuleSet> loaded, LoadConfiguredRules(settings_));
  if (loaded) rules_ = std::make_unique<RuleSet>(*std::move(loaded));
  DT_ASSIGN_OR_RETURN(shape_, MakeStepShape(settings_, model_.config));
  if (rules_ != nullptr) ApplyKvTypes(*rules_, model_.config.num_hidden_layers, &shape_);
  DT_RETURN_IF_ERROR(CheckRules(MakePlanInputs(), settings_.workers));
  const int64_t kv_bytes = KvCacheBytes(model_.config, shape_);
  LogInfo(absl::StrFormat("model %s (%s), %.1f MB", model_.name, model_.config.architecture,
                          static_cast<double>(model_.file->file_bytes()) / 1e6));
  LogInfo(absl::StrFormat("context %d tokens; KV cache %d tokens, %.1f MiB in all",
                          shape_.context_length, shape_.num_kv_blocks * kKvBlockTokens,
                          static_cast<double>(kv_bytes) / (1 << 20)));
  return absl::OkStatus();
}

PlanInputs ServedModel::MakePlanInputs() const {
  PlanInputs inputs;
  inputs.config = &model_.config;
  inputs.file = model_.file.get();
  inputs.rules = rules_.get();
  inputs.run_dir = run_dir_;
  inputs.model = label_;
  inputs.memory = settings_.memory;
  inputs.shape = shape_;
  return inputs;
}

EngineOptions ServedModel::MakeEngineOptions() {
  const model::ModelConfig& config = model_.config;
  EngineOptions options;
  options.shape = shape_;
  options.vocab_size = config.vocab_size;
  options.hidden_size = config.hidden_size;
  options.chunk_size = settings_.chunk_size;
  options.max_queue = settings_.max_queue;
  options.adaptive_lanes = settings_.lanes == 0;
  options.lanes = MostLanes(settings_);
  const uint64_t largest_frame =
      transport::MaxStepBytes(shape_, model::RowShapeOf(config), config.experts.count > 0);
  options.lanes_on_loops = static_cast<int>(
      std::max<uint64_t>(1, static_cast<uint64_t>(model::kRingBytes) / largest_frame));
  options.token_target = settings_.token_target;
  options.preemption = settings_.preemption;
  options.tenant_priority = settings_.key_priority;
  options.recovery_timeout = settings_.recovery_timeout;
  options.stream_rows = settings_.stream_rows;
  options.cost.num_experts = config.experts.count;
  options.cost.experts_used = config.experts.num_used;
  options.cost.block_copy_seconds = static_cast<double>(KvCacheBytes(config, shape_)) /
                                    shape_.num_blocks_in_all() / kCopiedBytesPerSecond;
  for (const Op& op : model::OpsOf(config)) {
    options.module_names.push_back(model::ModuleName(op));
  }
  // The engine has a pipeline only while there is a cluster.
  options.on_pipeline_lost = [this](const absl::Status& reason) {
    cluster_->OnPipelineLost(reason);
  };
  return options;
}

void ServedModel::StartEngine() {
  engine_ = std::make_unique<Engine>(MakeEngineOptions());
  ChatFormatOptions parsers;
  parsers.tool_parser = settings_.tool_parser;
  parsers.reasoning_parser = settings_.reasoning_parser;
  generation_ = std::make_unique<GenerationService>(
      model_.name, &model_.config, model_.tokenizer.get(), model_.chat_template.get(),
      engine_.get(), shape_.context_length, settings_.max_new_tokens, parsers);
  generation_->set_metrics(&metrics_);
  embeddings_ = std::make_unique<EmbeddingService>(&model_.config, model_.tokenizer.get(),
                                                   engine_.get(), shape_.context_length);
}

ClusterOptions ServedModel::MakeClusterOptions() {
  ClusterOptions options;
  options.model = label_;
  options.workers = settings_.workers;
  options.run_dir = run_dir_;
  options.cluster_key = cluster_key_;
  options.model_path = model_.path;
  options.model_fingerprint = model_.file->fingerprint();
  options.ring_bytes = static_cast<uint64_t>(model::kRingBytes);
  options.worker_timeout = settings_.worker_timeout;
  options.make_plan = [this](const std::vector<ClusterMember>& members) -> absl::StatusOr<Plan> {
    absl::StatusOr<Plan> plan = PlanMembers(MakePlanInputs(), members);
    if (!plan.ok()) return plan;
    DT_RETURN_IF_ERROR(ClaimBudgets(members));
    if (!label_.empty()) LogInfo(absl::StrCat("the plan of ", label_, ":"));
    LogLines(DescribePlan(*plan, model_.config));
    return plan;
  };
  options.make_pipeline = [this](std::shared_ptr<transport::Exchange> exchange, const Plan& plan) {
    return MakeExchangePipeline(std::move(exchange), plan.route, plan.shape,
                                model_.config.vocab_size, model_.config.hidden_size,
                                StreamCostOf(plan));
  };
  options.set_pipeline = [this](std::unique_ptr<Pipeline> pipeline) {
    engine_->SetPipeline(std::move(pipeline));
  };
  options.suspend_pipeline = [this](const absl::Status& reason) {
    engine_->SuspendPipeline(reason);
  };
  options.clear_pipeline = [this](const absl::Status& reason) { engine_->ClearPipeline(reason); };
  return options;
}

// Of several models: what their workers may use of the memory of a NUMA node or a device. That of
// the machine as a whole was compared before any worker was there.
absl::Status ServedModel::ClaimBudgets(const std::vector<ClusterMember>& members) {
  if (label_.empty()) return absl::OkStatus();
  std::vector<WorkerBudget> budgets;
  std::map<std::string, int64_t> free;
  std::map<std::string, int64_t> held;
  for (const ClusterMember& member : members) {
    const DeviceInfo& device = member.device;
    const std::string memory = MemoryOf(device);
    const auto budget = settings_.memory.find(device.name);
    if (memory == kThisMachine || budget == settings_.memory.end()) continue;
    budgets.push_back({model_.name, device.name, budget->second, memory});
    const int64_t own =
        SegmentBytes(*run_dir_, FullWorkerName(label_, device.name)) + device.held_bytes;
    free[memory] = std::max(free[memory], device.memory_bytes - own);
    held[memory] += own;
  }
  for (auto& [memory, bytes] : free) bytes += held[memory];
  return ledger_->Claim(model_.name, std::move(budgets), free);
}

void ServedModel::Start(const transport::RunDir* run_dir, BudgetLedger* ledger,
                        const std::string& cluster_key, std::function<void()> on_change) {
  run_dir_ = run_dir;
  cluster_key_ = cluster_key;
  ledger_ = ledger;
  on_change_ = std::move(on_change);
  StartEngine();
  cluster_ = std::make_unique<Cluster>(
      MakeClusterOptions(), [this](const ClusterSnapshot& snapshot) { OnClusterChange(snapshot); });
}

absl::Status ServedModel::StartWorkers(const WorkerLaunch& launch) {
  const CpuTopology topology = ReadCpuTopology();
  DT_RETURN_IF_ERROR(CheckLocalNodes(settings_, topology));
  const int threads = LocalThreads(settings_, topology);
  const std::map<std::string, int> nodes = LocalNodes(settings_, topology);
  std::map<std::string, std::string> cpus;
  std::map<std::string, std::string> names;  // by full name
  const std::vector<std::string> local = settings_.LocalWorkers();
  const std::vector<std::vector<int>> own = LocalCpus(settings_, topology);
  SupervisorOptions options;
  options.worker_binary = launch.binary;
  for (size_t i = 0; i < own.size(); ++i) {
    const std::string& name = local[i];
    options.workers.push_back(FullWorkerName(label_, name));
    names[options.workers.back()] = name;
    cpus[options.workers.back()] = absl::StrJoin(own[i], ",");
  }
  options.arguments = [this, launch, threads, nodes, cpus, names](const std::string& worker) {
    std::vector<std::string> arguments = {"--name",
                                          names.at(worker),
                                          "--coordinator",
                                          launch.address,
                                          "--run-dir",
                                          run_dir_->path(),
                                          "--threads",
                                          absl::StrCat(threads),
                                          "--log-level",
                                          launch.log_level,
                                          "--die-with-parent",
                                          "--memory",
                                          settings_.weight_memory,
                                          "--weights",
                                          settings_.weights};
    if (const auto gpu = settings_.gpus.find(names.at(worker)); gpu != settings_.gpus.end()) {
      arguments.insert(arguments.end(), {"--gpu", absl::StrCat(gpu->second)});
    }
    if (const auto node = nodes.find(names.at(worker)); node != nodes.end()) {
      arguments.insert(arguments.end(), {"--numa", absl::StrCat(node->second)});
    }
    if (!settings_.weight_cache.empty()) {
      arguments.insert(arguments.end(), {"--weight-cache", settings_.weight_cache});
    }
    if (!label_.empty()) arguments.insert(arguments.end(), {"--model", label_});
    if (!cpus.at(worker).empty()) arguments.insert(arguments.end(), {"--cpus", cpus.at(worker)});
    return arguments;
  };
  options.on_give_up = [this](const absl::Status& reason) { cluster_->Fail(reason); };
  DT_ASSIGN_OR_RETURN(auto started, Supervisor::Start(std::move(options)));
  absl::MutexLock lock(&mutex_);
  supervisor_ = std::move(started);
  if (cluster_->snapshot().state == ServingState::kReady) supervisor_->NoteReady();
  return absl::OkStatus();
}

void ServedModel::OnClusterChange(const ClusterSnapshot& snapshot) {
  {
    absl::MutexLock lock(&mutex_);
    const bool ready = snapshot.state == ServingState::kReady;
    if (ready && supervisor_ != nullptr) supervisor_->NoteReady();
  }
  // Of several models the others go on, and nobody else would say it.
  if (snapshot.state == ServingState::kFailed && !label_.empty() && !failure_told_) {
    failure_told_ = true;
    LogError(absl::StrCat(label_, " cannot go on: ", snapshot.failure.message()));
  }
  if (on_change_) on_change_();
}

void ServedModel::StopAccepting() {
  generation_->StopAccepting();
  embeddings_->StopAccepting();
}

void ServedModel::StopCluster(const std::string& reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (supervisor_ != nullptr) supervisor_->ExpectExit();
  }
  if (cluster_ != nullptr) cluster_->Shutdown(reason);
}

void ServedModel::StopWorkers() {
  std::unique_ptr<Supervisor> children;
  {
    absl::MutexLock lock(&mutex_);
    children = std::move(supervisor_);
  }
  if (children != nullptr) children->Stop();
}

ModelEntry ServedModel::Entry() const {
  ModelEntry entry;
  entry.name = model_.name;
  entry.aliases = settings_.model_aliases;
  entry.generation = generation_.get();
  entry.embeddings = embeddings_.get();
  entry.engine = engine_.get();
  entry.created = ModifiedSeconds(model_.path);
  entry.facts.file_bytes = model_.file->file_bytes();
  entry.facts.fingerprint = model_.file->fingerprint();
  entry.facts.quantization = MainWeightType(*model_.file);
  if (model_.chat_template != nullptr) entry.facts.chat_template = model_.chat_template->source();
  entry.context_length = shape_.context_length;
  entry.system_fingerprint = absl::StrCat("dovetail-cis1-", KvTypesText(model_.config, shape_));
  return entry;
}

int64_t ServedModel::HeldBytes(const transport::RunDir& run_dir) const {
  int64_t bytes = 0;
  for (const std::string& worker : settings_.LocalWorkers()) {
    bytes += SegmentBytes(run_dir, FullWorkerName(label_, worker));
  }
  return bytes;
}

StatusSnapshot ServedModel::Status() const {
  ClusterSnapshot snapshot = cluster_->snapshot();
  StatusSnapshot status;
  status.state = snapshot.state;
  status.message = std::move(snapshot.message);
  status.model = model_.name;
  status.epoch = snapshot.epoch;
  status.engine = engine_->stats();
  status.workers = std::move(snapshot.workers);
  for (WorkerSnapshot& worker : status.workers) worker.model = label_;
  return status;
}

absl::StatusOr<Plan> ServedModel::CurrentPlan() const {
  const auto plan = cluster_->plan();
  if (plan == nullptr) return absl::UnavailableError("there is no plan yet");
  return *plan;
}

absl::StatusOr<std::vector<ModuleExplanation>> ServedModel::Explain(
    const std::string& module) const {
  const auto plan = cluster_->plan();
  if (plan == nullptr) return absl::UnavailableError("there is no plan yet");
  return ExplainPlan(*plan, rules_.get(), module);
}

}  // namespace dovetail::coordinator
