#include "coordinator/service/cluster_service.h"

#include <atomic>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "base/log.h"
#include "dovetail/v1/cluster.grpc.pb.h"
#include "transport/status_convert.h"

namespace dovetail::coordinator {
namespace {

// Commands that a worker has not read yet. A worker in order reads at once; heartbeat acks add up
// otherwise.
constexpr size_t kMaxQueuedCommands = 64;
// Streams in all, attached or not: configured workers are few, whoever opens more is not one of
// them.
constexpr int kMaxStreams = 256;

// "10.0.0.2" of "ipv4:10.0.0.2:5050", "::1" of "ipv6:%5B::1%5D:5050" or "ipv6:[::1]:5050"; "" of a
// peer without an address.
std::string HostOfPeer(const std::string& peer) {
  const std::string text = absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}});
  const size_t kind = text.find(':'), port = text.rfind(':');
  if (!absl::StartsWith(text, "ipv") || kind == port) return "";
  std::string host = text.substr(kind + 1, port - kind - 1);
  if (absl::StartsWith(host, "[")) host = host.substr(1, host.size() - 2);
  return host;
}

// The reactor of one stream. gRPC holds it until OnDone, the cluster as long as it likes.
class AttachStream final : public grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>,
                           public WorkerLink,
                           public std::enable_shared_from_this<AttachStream> {
 public:
  AttachStream(const ClusterFinder* find, grpc::CallbackServerContext* context,
               std::atomic<int>* streams)
      : find_(find),
        peer_host_(HostOfPeer(context->peer())),
        context_(context),
        streams_(streams) {}

  void Begin() {
    self_ = shared_from_this();
    StartRead(&event_);
  }

  // WorkerLink.
  void Send(const v1::WorkerCommand& command) override {
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    if (queue_.size() >= kMaxQueuedCommands) {
      CloseLocked(absl::ResourceExhaustedError("the worker does not read its commands"));
      context_->TryCancel();
      return;
    }
    queue_.push_back(command);
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }

  void Close(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    CloseLocked(status);
  }

  void Abandon(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    const bool stuck = !closing_ && !queue_.empty();
    CloseLocked(status);
    if (stuck) context_->TryCancel();
  }

  void Next() override {
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    event_.Clear();
    StartRead(&event_);
  }

  std::string PeerHost() const override { return peer_host_; }

  // Reactions.
  void OnReadDone(bool ok) override {
    if (!ok) return End("its connection ended");
    v1::WorkerEvent event;
    event.Swap(&event_);
    const absl::StatusOr<Cluster*> cluster = ClusterOf(event);
    if (cluster.ok()) {
      (*cluster)->OnEvent(shared_from_this(), std::move(event));
    } else {
      LogWarn(absl::StrCat("refused a worker: ", cluster.status().message()));
      Close(cluster.status());
    }
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    queue_.pop_front();
    if (!ok) queue_.clear();
    if (!queue_.empty()) {
      StartWrite(&queue_.front());
    } else if (closing_) {
      Finish(transport::ToGrpcStatus(close_status_));
    }
  }

  void OnCancel() override { End("its connection broke"); }

  void OnDone() override {
    {
      absl::MutexLock lock(&mutex_);
      context_ = nullptr;
    }
    streams_->fetch_sub(1);
    self_.reset();  // may delete this
  }

 private:
  void CloseLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closing_) return;
    closing_ = true;
    close_status_ = status;
    if (queue_.empty()) Finish(transport::ToGrpcStatus(status));
  }

  // The first message says whose worker this is.
  absl::StatusOr<Cluster*> ClusterOf(const v1::WorkerEvent& event) {
    absl::MutexLock lock(&mutex_);
    if (cluster_ == nullptr) {
      const absl::StatusOr<Cluster*> found = (*find_)(event.register_().model());
      if (!found.ok()) return found.status();
      cluster_ = *found;
    }
    return cluster_;
  }

  // The worker's side is over.
  void End(const char* reason) {
    Cluster* cluster = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (!closing_) cluster = cluster_;
      CloseLocked(absl::OkStatus());
    }
    if (cluster != nullptr) {
      cluster->OnClosed(shared_from_this(), absl::UnavailableError(reason));
    }
  }

  const ClusterFinder* const find_;
  const std::string peer_host_;
  absl::Mutex mutex_;
  Cluster* cluster_ ABSL_GUARDED_BY(mutex_) = nullptr;  // from the first message on
  grpc::CallbackServerContext* context_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int>* const streams_;
  v1::WorkerEvent event_;                                        // of the read in progress
  std::deque<v1::WorkerCommand> queue_ ABSL_GUARDED_BY(mutex_);  // front: being written
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status close_status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<AttachStream> self_;
};

// Ends a stream that was not wanted.
class RefusedStream final : public grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

class ClusterServiceImpl final : public v1::ClusterService::CallbackService {
 public:
  explicit ClusterServiceImpl(ClusterFinder find) : find_(std::move(find)) {}

  grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>* Attach(
      grpc::CallbackServerContext* context) override {
    if (streams_.fetch_add(1) >= kMaxStreams) {
      streams_.fetch_sub(1);
      return new RefusedStream(
          grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many worker streams"));
    }
    auto stream = std::make_shared<AttachStream>(&find_, context, &streams_);
    stream->Begin();
    return stream.get();
  }

 private:
  const ClusterFinder find_;
  std::atomic<int> streams_{0};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeClusterService(ClusterFinder find) {
  return std::make_unique<ClusterServiceImpl>(std::move(find));
}

}  // namespace dovetail::coordinator
