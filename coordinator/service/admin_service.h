// AdminService: state, plan and an orderly end for operators.
#ifndef DOVETAIL_COORDINATOR_SERVICE_ADMIN_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_ADMIN_SERVICE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/api_keys.h"
#include "coordinator/placement/explain.h"
#include "coordinator/placement/plan.h"
#include "coordinator/status_snapshot.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

// What the service asks of the coordinator; every function is thread-safe.
struct AdminHooks {
  std::function<StatusSnapshot()> status;
  std::function<absl::StatusOr<Plan>()> plan;
  // By the beginning of a module's name; Unavailable before there is a plan.
  std::function<absl::StatusOr<std::vector<ModuleExplanation>>(const std::string& name)> explain;
  std::function<absl::StatusOr<std::vector<SequenceInfo>>()> sequences;  // may wait for a step
  std::function<int(absl::Duration timeout)> drain;  // waits; zero: the configured timeout
  std::function<void()> request_exit;                // returns at once
  const ApiKeys* keys = nullptr;                     // borrowed; null: everybody may call
};

// Drains run one after the other on a thread of the service, which its destructor joins.
std::unique_ptr<grpc::Service> MakeAdminService(AdminHooks hooks);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_ADMIN_SERVICE_H_
