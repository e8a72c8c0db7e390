// Do the budgets of several models fit the memories that they share? A memory is a machine's, one
// of its NUMA nodes, or a device's own.
#ifndef DOVETAIL_COORDINATOR_BUDGET_CHECK_H_
#define DOVETAIL_COORDINATOR_BUDGET_CHECK_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {

inline constexpr char kThisMachine[] = "this machine";

// What one worker of one model may use, and of which memory.
struct WorkerBudget {
  std::string model;
  std::string worker;
  int64_t bytes = 0;
  std::string memory = kThisMachine;
};

// The memory that a device's worker uses: "NUMA node 1", `kThisMachine` of a CPU worker that is
// bound to none, the device's name of another.
std::string MemoryOf(const DeviceInfo& device);

// `available` is what is free of each memory. ResourceExhausted: a table for each that is too
// small, with every budget, their sum and what is missing.
absl::Status CheckBudgets(const std::vector<WorkerBudget>& budgets,
                          const std::map<std::string, int64_t>& available);

// The budgets of all models, as they come to be known to use a memory: which NUMA node a worker is
// bound to is seen when it registers. Thread-safe.
class BudgetLedger {
 public:
  // In place of what `model` had claimed. `available` is what is free of their memories as its
  // workers see it, what they hold themselves included; the most that was seen of a memory counts,
  // because what is free sinks while models load. ResourceExhausted as CheckBudgets(); nothing is
  // claimed then.
  absl::Status Claim(const std::string& model, std::vector<WorkerBudget> budgets,
                     const std::map<std::string, int64_t>& available);

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::vector<WorkerBudget>> claims_ ABSL_GUARDED_BY(mutex_);  // by model
  std::map<std::string, int64_t> available_ ABSL_GUARDED_BY(mutex_);                 // by memory
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_BUDGET_CHECK_H_
