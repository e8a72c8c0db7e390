#include "coordinator/budget_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

// The table of a memory that is too small for its budgets; empty if it is not.
std::string TooSmall(const std::vector<WorkerBudget>& budgets, const std::string& memory,
                     int64_t available) {
  std::vector<std::vector<std::string>> rows = {{"model", "worker", "budget"}};
  double together = 0;  // budgets are what a person wrote: their sum may be beyond an int64_t
  for (const WorkerBudget& budget : budgets) {
    if (budget.memory != memory) continue;
    together += static_cast<double>(budget.bytes);
    rows.push_back({budget.model, budget.worker, FormatBytes(budget.bytes)});
  }
  if (together <= static_cast<double>(available)) return "";
  const auto sum = static_cast<int64_t>(std::min(together, 9e18));
  rows.push_back({"together", "", FormatBytes(sum)});
  rows.push_back({"available", "", FormatBytes(available)});
  rows.push_back({"too little", "", FormatBytes(sum - available)});
  return absl::StrCat("the models' budgets are more than ", memory, " has available:\n",
                      FormatTable(rows));
}

}  // namespace

std::string MemoryOf(const DeviceInfo& device) {
  if (device.kind == DeviceKind::kCuda) return device.name;
  if (const absl::string_view host = HostOf(device.name); !host.empty()) {
    return absl::StrCat(
        host, device.numa_node < 0 ? "" : absl::StrCat("'s NUMA node ", device.numa_node));
  }
  return device.numa_node < 0 ? kThisMachine : absl::StrCat("NUMA node ", device.numa_node);
}

absl::Status CheckBudgets(const std::vector<WorkerBudget>& budgets,
                          const std::map<std::string, int64_t>& available) {
  std::string tables;
  for (const auto& [memory, bytes] : available) {
    absl::StrAppend(&tables, TooSmall(budgets, memory, bytes));
  }
  if (tables.empty()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(tables, "Give the models less `memory`, or fewer models."));
}

absl::Status BudgetLedger::Claim(const std::string& model, std::vector<WorkerBudget> budgets,
                                 const std::map<std::string, int64_t>& available) {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, int64_t> touched;
  for (const auto& [memory, bytes] : available) {
    int64_t& most = available_[memory];
    touched[memory] = most = std::max(most, bytes);
  }
  std::vector<WorkerBudget> all;
  for (const auto& [name, claimed] : claims_) {
    if (name != model) all.insert(all.end(), claimed.begin(), claimed.end());
  }
  claims_.erase(model);
  all.insert(all.end(), budgets.begin(), budgets.end());
  DT_RETURN_IF_ERROR(CheckBudgets(all, touched));
  claims_[model] = std::move(budgets);
  return absl::OkStatus();
}

}  // namespace dovetail::coordinator
