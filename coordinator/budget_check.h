// Do the budgets of several models fit the machine that they share? Pure functions.
#ifndef DOVETAIL_COORDINATOR_BUDGET_CHECK_H_
#define DOVETAIL_COORDINATOR_BUDGET_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace dovetail::coordinator {

// What one worker of one model may use.
struct WorkerBudget {
  std::string model;
  std::string worker;
  int64_t bytes = 0;
};

// CPU workers, whatever their numbers, use one machine's memory, of which `available_bytes` are
// free. ResourceExhausted: a table with every budget, their sum and what is missing.
absl::Status CheckBudgets(const std::vector<WorkerBudget>& budgets, int64_t available_bytes);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_BUDGET_CHECK_H_
