// HealthService: grpc.health.v1.Health for "" (the server) and the services named at construction.
//
// Written here and not taken from libgrpc++ because that one is SERVING from the first moment and
// unknown to reflection. Thread-safe.
#ifndef DOVETAIL_COORDINATOR_SERVICE_HEALTH_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_HEALTH_SERVICE_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

class HealthWatcher;

class HealthService {
 public:
  // NOT_SERVING until told otherwise.
  explicit HealthService(const std::set<std::string>& services);
  ~HealthService();

  // All services that were named at construction and "", or one of them.
  void SetServing(bool serving);
  void SetServing(const std::string& service, bool serving);
  // Ends every Watch, so that the server can stop.
  void Shutdown();
  grpc::Service* service() { return service_.get(); }

 private:
  friend class HealthWatcher;
  class Impl;
  // SERVICE_UNKNOWN, SERVING or NOT_SERVING.
  int StatusOf(const std::string& service) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateWatchers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<HealthWatcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Service> service_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_HEALTH_SERVICE_H_
