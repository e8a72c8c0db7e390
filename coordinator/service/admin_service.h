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

struct ModelPlan {
  std::string model;  // its name
  Plan plan;
};

struct ModelSequences {
  std::string model;
  std::vector<SequenceInfo> sequences;
};

// What the service asks of the coordinator; every function is thread-safe. A model is named as
// clients name it; the names of several and of none are refused as by ModelDirectory::Find.
struct AdminHooks {
  std::function<absl::StatusOr<StatusSnapshot>(const std::string& model)> status;  // "": all
  std::function<absl::StatusOr<ModelPlan>(const std::string& model)> plan;
  // By the beginning of a module's name; Unavailable before there is a plan.
  std::function<absl::StatusOr<std::vector<ModuleExplanation>>(const std::string& model,
                                                               const std::string& module)>
      explain;
  // "": of all models. May wait for a step.
  std::function<absl::StatusOr<std::vector<ModelSequences>>(const std::string& model)> sequences;
  std::function<int(absl::Duration timeout)> drain;  // waits; zero: the configured timeout
  std::function<void()> request_exit;                // returns at once
  const ApiKeys* keys = nullptr;                     // borrowed; null: everybody may call
};

// Drains run one after the other on a thread of the service, which its destructor joins.
std::unique_ptr<grpc::Service> MakeAdminService(AdminHooks hooks);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_ADMIN_SERVICE_H_
