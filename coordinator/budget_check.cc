#include "coordinator/budget_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {

absl::Status CheckBudgets(const std::vector<WorkerBudget>& budgets, int64_t available_bytes) {
  std::vector<std::vector<std::string>> rows = {{"model", "worker", "budget"}};
  double together = 0;  // budgets are what a person wrote: their sum may be beyond an int64_t
  for (const WorkerBudget& budget : budgets) {
    together += static_cast<double>(budget.bytes);
    rows.push_back({budget.model, budget.worker, FormatBytes(budget.bytes)});
  }
  if (together <= static_cast<double>(available_bytes)) return absl::OkStatus();
  const auto sum = static_cast<int64_t>(std::min(together, 9e18));
  rows.push_back({"together", "", FormatBytes(sum)});
  rows.push_back({"available", "", FormatBytes(available_bytes)});
  rows.push_back({"too little", "", FormatBytes(sum - available_bytes)});
  return absl::ResourceExhaustedError(
      absl::StrCat("the models' budgets are more than this machine has available:\n",
                   FormatTable(rows), "Give the models less `memory`, or fewer models."));
}

}  // namespace dovetail::coordinator
