#include "coordinator/service/health_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace dovetail::coordinator {

namespace health = ::grpc::health::v1;
using ServingStatus = health::HealthCheckResponse::ServingStatus;

namespace {

constexpr size_t kMaxWatchers = 256;

ServingStatus StatusOf(bool known, bool serving) {
  if (!known) return health::HealthCheckResponse::SERVICE_UNKNOWN;
  return serving ? health::HealthCheckResponse::SERVING : health::HealthCheckResponse::NOT_SERVING;
}

}  // namespace

// One Watch call. All members but the reactions are called with the service's mutex held.
class HealthWatcher final : public grpc::ServerWriteReactor<health::HealthCheckResponse> {
 public:
  HealthWatcher(HealthService* service, bool known) : service_(service), known_(known) {}

  void Update(bool serving) {
    wanted_ = StatusOf(known_, serving);
    WriteIfChanged();
  }

  void End(const grpc::Status& status) {
    if (finished_) return;
    finished_ = true;
    Finish(status);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&service_->mutex_);
    writing_ = false;
    if (!ok) {
      End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the client is gone"));
    } else {
      WriteIfChanged();
    }
  }

  void OnCancel() override {
    absl::MutexLock lock(&service_->mutex_);
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    {
      absl::MutexLock lock(&service_->mutex_);
      service_->watchers_.erase(this);
    }
    delete this;
  }

 private:
  void WriteIfChanged() {
    if (writing_ || finished_ || wanted_ == written_) return;
    writing_ = true;
    written_ = wanted_;
    response_.set_status(static_cast<ServingStatus>(wanted_));
    StartWrite(&response_);
  }

  HealthService* const service_;
  const bool known_;
  health::HealthCheckResponse response_;
  int wanted_ = -1;
  int written_ = -1;
  bool writing_ = false;
  bool finished_ = false;
};

class HealthService::Impl final : public health::Health::CallbackService {
 public:
  explicit Impl(HealthService* owner) : owner_(owner) {}

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const health::HealthCheckRequest* request,
                                  health::HealthCheckResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (!owner_->Knows(request->service())) {
      reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service"));
      return reactor;
    }
    absl::MutexLock lock(&owner_->mutex_);
    response->set_status(StatusOf(true, owner_->serving_));
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<health::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context, const health::HealthCheckRequest* request) override {
    auto* watcher = new HealthWatcher(owner_, owner_->Knows(request->service()));
    absl::MutexLock lock(&owner_->mutex_);
    const bool full = owner_->watchers_.size() >= kMaxWatchers;
    owner_->watchers_.insert(watcher);
    if (owner_->shutdown_) {
      watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    } else if (full) {
      watcher->End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many watchers"));
    } else {
      watcher->Update(owner_->serving_);
    }
    return watcher;
  }

 private:
  HealthService* const owner_;
};

HealthService::HealthService(std::set<std::string> services)
    : services_(std::move(services)), service_(std::make_unique<Impl>(this)) {}

HealthService::~HealthService() = default;

void HealthService::SetServing(bool serving) {
  absl::MutexLock lock(&mutex_);
  serving_ = serving && !shutdown_;
  for (HealthWatcher* watcher : watchers_) watcher->Update(serving_);
}

void HealthService::Shutdown() {
  absl::MutexLock lock(&mutex_);
  serving_ = false;
  shutdown_ = true;
  for (HealthWatcher* watcher : watchers_) {
    watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
  }
}

bool HealthService::Knows(const std::string& service) const {
  return service.empty() || services_.count(service) > 0;
}

}  // namespace dovetail::coordinator
