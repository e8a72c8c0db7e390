#include "coordinator/service/health_service.h"

#include <utility>

#include "base/check.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace dovetail::coordinator {

namespace health = ::grpc::health::v1;
using ServingStatus = health::HealthCheckResponse::ServingStatus;

namespace {

constexpr size_t kMaxWatchers = 256;

}  // namespace

// One Watch call. All members but the reactions are called with the service's mutex held.
class HealthWatcher final : public grpc::ServerWriteReactor<health::HealthCheckResponse> {
 public:
  HealthWatcher(HealthService* service, std::string name)
      : service_(service), name_(std::move(name)) {}

  const std::string& name() const { return name_; }

  void Update(int status) {
    wanted_ = status;
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
  const std::string name_;
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
    absl::MutexLock lock(&owner_->mutex_);
    const int status = owner_->StatusOf(request->service());
    if (status == health::HealthCheckResponse::SERVICE_UNKNOWN) {
      reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service"));
      return reactor;
    }
    response->set_status(static_cast<ServingStatus>(status));
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<health::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context, const health::HealthCheckRequest* request) override {
    auto* watcher = new HealthWatcher(owner_, request->service());
    absl::MutexLock lock(&owner_->mutex_);
    const bool full = owner_->watchers_.size() >= kMaxWatchers;
    owner_->watchers_.insert(watcher);
    if (owner_->shutdown_) {
      watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    } else if (full) {
      watcher->End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many watchers"));
    } else {
      watcher->Update(owner_->StatusOf(watcher->name()));
    }
    return watcher;
  }

 private:
  HealthService* const owner_;
};

HealthService::HealthService(const std::set<std::string>& services)
    : service_(std::make_unique<Impl>(this)) {
  absl::MutexLock lock(&mutex_);
  serving_[""] = false;
  for (const std::string& service : services) serving_[service] = false;
}

HealthService::~HealthService() = default;

void HealthService::SetServing(bool serving) {
  absl::MutexLock lock(&mutex_);
  for (auto& [service, is_serving] : serving_) is_serving = serving && !shutdown_;
  UpdateWatchers();
}

void HealthService::SetServing(const std::string& service, bool serving) {
  absl::MutexLock lock(&mutex_);
  const auto found = serving_.find(service);
  DT_CHECK(found != serving_.end());
  found->second = serving && !shutdown_;
  UpdateWatchers();
}

void HealthService::Shutdown() {
  absl::MutexLock lock(&mutex_);
  for (auto& [service, is_serving] : serving_) is_serving = false;
  shutdown_ = true;
  for (HealthWatcher* watcher : watchers_) {
    watcher->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
  }
}

int HealthService::StatusOf(const std::string& service) const {
  const auto found = serving_.find(service);
  if (found == serving_.end()) return health::HealthCheckResponse::SERVICE_UNKNOWN;
  return found->second ? health::HealthCheckResponse::SERVING
                       : health::HealthCheckResponse::NOT_SERVING;
}

void HealthService::UpdateWatchers() {
  for (HealthWatcher* watcher : watchers_) watcher->Update(StatusOf(watcher->name()));
}

}  // namespace dovetail::coordinator
