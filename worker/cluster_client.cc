#include "worker/cluster_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/patience.h"
#include "base/process_memory.h"
#include "base/status_macros.h"
#include "base/worker_name.h"
#include "dovetail/v1/cluster.grpc.pb.h"
#include "transport/remote_edges.h"
#include "transport/run_dir.h"
#include "transport/status_convert.h"
#include "transport/worker_plan.h"
#include "worker/registration.h"

namespace dovetail::worker {
namespace {

using Milliseconds = std::chrono::milliseconds;
using Stream = grpc::ClientReaderWriter<v1::WorkerEvent, v1::WorkerCommand>;

constexpr Milliseconds kMinBackoff{100};
constexpr Milliseconds kMaxBackoff{2000};
constexpr Milliseconds kPollSlice{500};                         // how soon a wait notices Stop()
constexpr absl::Duration kRegisterTimeout = absl::Seconds(10);  // until Registered says otherwise
constexpr absl::Duration kEdgeTimeout = absl::Seconds(10);  // for one to another host to come up

uint64_t RandomIncarnation() {
  std::random_device random;
  return static_cast<uint64_t>(random()) << 32 | random();
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::string& tls_roots) {
  if (tls_roots.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = tls_roots;
  return grpc::SslCredentials(options);
}

std::shared_ptr<grpc::Channel> Dial(const ClusterClientOptions& options) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, static_cast<int>(kMinBackoff.count()));
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(kMinBackoff.count()));
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, static_cast<int>(kMaxBackoff.count()));
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(options.coordinator, Credentials(options.tls_roots), args);
}

// The exchange file by its name in our view of the run directory: the coordinator's may be mounted
// elsewhere.
std::string ExchangePathOf(const transport::RunDir& run_dir, const v1::Connect& connect) {
  const std::string& file = connect.exchange_file();
  if (file.empty()) return run_dir.ExchangePath(connect.epoch());
  return absl::StrCat(run_dir.path(), "/", file.substr(file.rfind('/') + 1));
}

std::vector<transport::RemoteEdge> RemoteEdgesIn(const v1::Connect& connect) {
  std::vector<transport::RemoteEdge> edges;
  for (const v1::RemoteEdge& edge : connect.remote_edges()) {
    edges.push_back(
        {.from = edge.from(),
         .to = edge.to(),
         .kind = edge.gathers() ? transport::EdgeKind::kGather : transport::EdgeKind::kSteps,
         .has_answer = edge.has_answer(),
         .address = edge.address()});
  }
  return edges;
}

}  // namespace

struct ClusterClient::Impl {
  ClusterClientOptions options;
  uint64_t incarnation = RandomIncarnation();
  DeviceFacts facts;
  Executor* executor = nullptr;

  // The lease. `lease_mutex` guards all of this; it is never held during a call that may wait.
  std::mutex lease_mutex;
  std::condition_variable lease_cv;
  grpc::ClientContext* context = nullptr;  // of the attached stream, to cancel it
  bool stopping = false;
  bool registered = false;
  Patience silence{kRegisterTimeout};  // of the coordinator
  absl::Duration heartbeat_interval = absl::Seconds(1);
  uint64_t peak_held = 0;  // of the heartbeats; of the thread that keeps the lease
  // Of the thread that reads commands.
  std::string edge_key;
  uint64_t ring_bytes = 0;  // of the plan

  // One writer at a time.
  std::mutex write_mutex;
  Stream* stream = nullptr;  // guarded by write_mutex

  bool shut_down = false;  // Run()'s thread only

  // Sends an event if a coordinator is attached; what nobody is there to hear is dropped.
  void Send(const v1::WorkerEvent& event) {
    std::lock_guard<std::mutex> lock(write_mutex);
    if (stream != nullptr) stream->Write(event);
  }

  void SendFailure(const absl::Status& status, uint64_t epoch) {
    LogError(status.ToString());
    v1::WorkerEvent event;
    event.mutable_failure()->set_epoch(epoch);
    event.mutable_failure()->set_code(static_cast<uint32_t>(status.code()));
    event.mutable_failure()->set_message(std::string(status.message()));
    Send(event);
  }

  bool Stopping() {
    std::lock_guard<std::mutex> lock(lease_mutex);
    return stopping;
  }

  void Sleep(Milliseconds duration) {
    std::unique_lock<std::mutex> lock(lease_mutex);
    lease_cv.wait_for(lock, duration, [this] { return stopping; });
  }

  void SendHeartbeat() {
    const ExecutorStats stats = executor->stats();
    v1::WorkerEvent event;
    event.mutable_heartbeat()->set_steps(stats.steps);
    event.mutable_heartbeat()->set_busy_microseconds(stats.busy_microseconds);
    // As the plan counts: each ring once, and no pages of files, which the kernel's own peak has.
    uint64_t held = HeldBytes();
    held -= std::min(held, stats.peers_ring_bytes);
    peak_held = std::max(peak_held, held);
    event.mutable_heartbeat()->set_resident_bytes(held);
    event.mutable_heartbeat()->set_peak_resident_bytes(peak_held);
    for (const SegmentStats& segment : stats.segments) {
      v1::SegmentTime* time = event.mutable_heartbeat()->add_segments();
      time->set_segment(segment.segment);
      time->set_steps(segment.steps);
      time->set_busy_microseconds(segment.busy_microseconds);
    }
    Send(event);
  }

  // Beats while the stream lives, and ends it when the coordinator falls silent.
  void KeepLease(const std::atomic<bool>& ended) {
    std::unique_lock<std::mutex> lock(lease_mutex);
    absl::Time now = absl::Now();
    absl::Time next_beat = now;  // the first one as soon as it is registered
    while (!ended.load()) {
      const absl::Duration until_beat = registered ? next_beat - now : absl::InfiniteDuration();
      const absl::Duration sleep = std::min(until_beat, silence.UntilNextLook());
      lease_cv.wait_for(lock, absl::ToChronoNanoseconds(sleep));
      if (ended.load()) return;
      now = absl::Now();
      if (silence.Exhausted(now)) {
        LogWarn(absl::StrCat("nothing heard from the coordinator for ",
                             absl::FormatDuration(silence.limit())));
        context->TryCancel();
        return;
      }
      if (!registered || now < next_beat) continue;
      next_beat = now + heartbeat_interval;
      lock.unlock();
      SendHeartbeat();
      lock.lock();
    }
  }

  // `run_dir`: null of a worker of another host.
  void Handle(const v1::WorkerCommand& command, const transport::RunDir* run_dir);
  absl::Status TakeKey(const v1::Registered& registered);
  void Load(transport::WorkerPlan plan, const transport::RunDir* run_dir);
  void Connect(const v1::Connect& connect, const transport::RunDir* run_dir);
  bool KeepsMemoryInRunDir(const transport::WorkerPlan& plan,
                           const transport::RunDir* run_dir) const;
  absl::Status Attach(const std::shared_ptr<grpc::Channel>& channel,
                      const transport::RunDir* run_dir);
  absl::Status ServeStream(Stream* attached, const transport::RunDir* run_dir);
};

// Where others stream this worker's experts it is in the run directory, unless it was told
// otherwise.
bool ClusterClient::Impl::KeepsMemoryInRunDir(const transport::WorkerPlan& plan,
                                              const transport::RunDir* run_dir) const {
  if (run_dir == nullptr) return false;
  if (facts.memory == MemoryKind::kAuto && plan.step_shape.stream_bytes > 0 &&
      facts.device == nullptr) {
    return true;
  }
  return ChooseMemoryKind(facts.memory, run_dir->path()) == MemoryKind::kShared;
}

// Whoever connects to this worker's listener must have it.
absl::Status ClusterClient::Impl::TakeKey(const v1::Registered& registered) {
  edge_key = registered.edge_key();
  if (options.listener == nullptr) return absl::OkStatus();
  if (edge_key.size() != transport::kEdgeKeyBytes) {
    return absl::InternalError(absl::StrCat("the coordinator's key for edges has ", edge_key.size(),
                                            " bytes, not ", transport::kEdgeKeyBytes));
  }
  options.listener->SetKey(edge_key);
  return absl::OkStatus();
}

void ClusterClient::Impl::Load(transport::WorkerPlan plan, const transport::RunDir* run_dir) {
  if (!options.model_file.empty()) plan.model_path = options.model_file;
  LogInfo(absl::StrCat("loading ", plan.model_path));
  ring_bytes = plan.ring_bytes;
  const bool shared = KeepsMemoryInRunDir(plan, run_dir);
  const std::string name = FullWorkerName(facts.model, facts.worker);
  std::map<std::string, std::string> peers;
  for (const Segment& segment : plan.route) {
    if (run_dir == nullptr) break;
    peers[segment.worker] = run_dir->WeightsPath(FullWorkerName(facts.model, segment.worker));
  }
  executor->Load(std::move(plan), shared ? run_dir->WeightsPath(name) : "",
                 shared ? run_dir->KvPath(name) : "",
                 [peers = std::move(peers)](const std::string& peer) { return peers.at(peer); });
}

// Opened on the executor's thread, which the exchange belongs to.
void ClusterClient::Impl::Connect(const v1::Connect& connect, const transport::RunDir* run_dir) {
  const std::string path = run_dir == nullptr ? "" : ExchangePathOf(*run_dir, connect);
  const auto spec = transport::SpecOfRemoteWorker(facts.worker, connect.epoch(), ring_bytes);
  executor->Connect(
      [path, spec, worker = facts.worker, edges = RemoteEdgesIn(connect), key = edge_key,
       listener = options.listener]() -> absl::StatusOr<std::shared_ptr<transport::Exchange>> {
        std::shared_ptr<transport::Exchange> exchange;
        if (path.empty()) {
          exchange = transport::Exchange::CreateInProcess(spec);
        } else {
          DT_ASSIGN_OR_RETURN(exchange, transport::Exchange::Open(path, spec.epoch));
        }
        DT_RETURN_IF_ERROR(
            transport::AddRemoteEdges(worker, edges, key, listener, kEdgeTimeout, exchange.get()));
        return exchange;
      });
}

void ClusterClient::Impl::Handle(const v1::WorkerCommand& command,
                                 const transport::RunDir* run_dir) {
  switch (command.command_case()) {
    case v1::WorkerCommand::kRegistered: {
      const v1::Registered& r = command.registered();
      if (const absl::Status status = TakeKey(r); !status.ok()) return SendFailure(status, 0);
      std::lock_guard<std::mutex> lock(lease_mutex);
      heartbeat_interval = absl::Milliseconds(std::max(10u, r.heartbeat_interval_ms()));
      silence = Patience(absl::Milliseconds(std::max(100u, r.heartbeat_timeout_ms())));
      registered = true;
      lease_cv.notify_all();
      LogInfo(absl::StrCat("attached to the coordinator at ", options.coordinator));
      break;
    }
    case v1::WorkerCommand::kLoad: {
      auto plan = transport::FromProto(command.load().plan());
      if (!plan.ok()) return SendFailure(Annotate(plan.status(), "the plan"), 0);
      Load(*std::move(plan), run_dir);
      break;
    }
    case v1::WorkerCommand::kConnect:
      Connect(command.connect(), run_dir);
      break;
    case v1::WorkerCommand::kDisconnect:
      executor->Disconnect(command.disconnect().epoch());
      break;
    case v1::WorkerCommand::kShutdown:
      LogInfo(absl::StrCat("shutting down: ", command.shutdown().reason()));
      shut_down = true;
      break;
    case v1::WorkerCommand::kHeartbeatAck:
    case v1::WorkerCommand::COMMAND_NOT_SET:
      break;
  }
}

absl::Status ClusterClient::Impl::Attach(const std::shared_ptr<grpc::Channel>& channel,
                                         const transport::RunDir* run_dir) {
  const std::unique_ptr<v1::ClusterService::Stub> stub = v1::ClusterService::NewStub(channel);
  grpc::ClientContext attached_context;
  {
    std::lock_guard<std::mutex> lock(lease_mutex);
    if (stopping) return absl::CancelledError("stopping");
    context = &attached_context;
    registered = false;
    silence = Patience(kRegisterTimeout);
  }
  const std::unique_ptr<Stream> attached = stub->Attach(&attached_context);
  std::atomic<bool> ended{false};
  std::thread keeper([&] { KeepLease(ended); });
  absl::Status status = ServeStream(attached.get(), run_dir);
  {
    std::lock_guard<std::mutex> lock(lease_mutex);
    ended.store(true);
    lease_cv.notify_all();
  }
  keeper.join();
  std::lock_guard<std::mutex> lock(lease_mutex);
  context = nullptr;
  return status;
}

absl::Status ClusterClient::Impl::ServeStream(Stream* attached, const transport::RunDir* run_dir) {
  {
    std::lock_guard<std::mutex> lock(write_mutex);
    v1::WorkerEvent event;
    v1::Register& message = *event.mutable_register_();
    message = MakeRegister(facts, run_dir, incarnation);
    message.set_cluster_key(options.cluster_key);
    message.set_data_address(options.data_address);
    attached->Write(event);
    stream = attached;
  }
  v1::WorkerCommand command;
  while (!shut_down && attached->Read(&command)) {
    {
      std::lock_guard<std::mutex> lock(lease_mutex);
      silence.Renew();
    }
    Handle(command, run_dir);
  }
  if (shut_down) {
    // The coordinator keeps its side open; ours ends here.
    std::lock_guard<std::mutex> lock(lease_mutex);
    context->TryCancel();
  }
  {
    std::lock_guard<std::mutex> lock(write_mutex);
    stream = nullptr;
  }
  return transport::FromGrpcStatus(attached->Finish());
}

ClusterClient::ClusterClient(ClusterClientOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
}

ClusterClient::~ClusterClient() = default;

ExecutorEvents ClusterClient::events() {
  Impl* impl = impl_.get();
  ExecutorEvents events;
  events.load_progress = [impl](uint64_t plan_id, uint64_t done, uint64_t total) {
    v1::WorkerEvent event;
    event.mutable_load_progress()->set_plan_id(plan_id);
    event.mutable_load_progress()->set_bytes_done(done);
    event.mutable_load_progress()->set_bytes_total(total);
    impl->Send(event);
  };
  events.loaded = [impl](const LoadResult& result) {
    const double gigabytes = 1e-9 * static_cast<double>(result.weight_bytes);
    LogInfo(absl::StrFormat("%s %.2f GB of weights%s in %.2f s, %.2f GB/s",
                            result.reattached ? "found" : "loaded", gigabytes,
                            result.from_cache ? " from the cache" : "", result.seconds,
                            gigabytes / std::max(result.seconds, 1e-6)));
    v1::WorkerEvent event;
    event.mutable_loaded()->set_plan_id(result.plan_id);
    event.mutable_loaded()->set_weight_bytes(result.weight_bytes);
    event.mutable_loaded()->set_seconds(result.seconds);
    event.mutable_loaded()->set_reattached(result.reattached);
    impl->Send(event);
  };
  events.connected = [impl](uint64_t epoch) {
    v1::WorkerEvent event;
    event.mutable_connected()->set_epoch(epoch);
    impl->Send(event);
  };
  events.failed = [impl](const absl::Status& status, uint64_t epoch) {
    impl->SendFailure(status, epoch);
  };
  return events;
}

absl::Status ClusterClient::Run(const DeviceFacts& facts, Executor* executor) {
  impl_->facts = facts;
  impl_->executor = executor;
  const ClusterClientOptions& options = impl_->options;
  const std::shared_ptr<grpc::Channel> channel = Dial(options);
  Milliseconds backoff = kMinBackoff;
  absl::StatusCode last_code = absl::StatusCode::kOk;
  LogInfo(absl::StrCat("waiting for the coordinator at ", options.coordinator,
                       options.run_dir.empty() ? "" : ", run directory ", options.run_dir));
  while (!impl_->Stopping()) {
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + kPollSlice)) continue;
    const absl::Status status = [&]() -> absl::Status {
      if (options.run_dir.empty()) return impl_->Attach(channel, nullptr);
      // Opened anew for each attempt: another coordinator may have made another one.
      DT_ASSIGN_OR_RETURN(
          const auto run_dir,
          transport::RunDir::Open(options.run_dir, static_cast<int>(kPollSlice.count())));
      return impl_->Attach(channel, run_dir.get());
    }();
    executor->Disconnect(0);
    if (impl_->shut_down || impl_->Stopping()) break;
    if (absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status)) {
      return Annotate(status, "the coordinator refused");
    }
    if (impl_->registered) backoff = kMinBackoff;
    if (impl_->registered || status.code() != last_code) {
      LogWarn(absl::StrCat("no coordinator: ", status.ToString(), "; dialling again"));
    }
    last_code = status.code();
    impl_->registered = false;
    impl_->Sleep(backoff);
    backoff = std::min(2 * backoff, kMaxBackoff);
  }
  return absl::OkStatus();
}

void ClusterClient::Stop() {
  std::lock_guard<std::mutex> lock(impl_->lease_mutex);
  impl_->stopping = true;
  impl_->lease_cv.notify_all();
  if (impl_->context != nullptr) impl_->context->TryCancel();
}

}  // namespace dovetail::worker
