#include "coordinator/budget_check.h"

#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;

constexpr int64_t kGiB = int64_t{1} << 30;

TEST(BudgetCheckTest, TheSumCounts) {
  const std::vector<WorkerBudget> budgets = {
      {"tiny", "cpu:0", kGiB}, {"small", "cpu:0", 2 * kGiB}, {"small", "cpu:1", kGiB}};
  EXPECT_OK(CheckBudgets(budgets, 4 * kGiB));
  EXPECT_THAT(CheckBudgets(budgets, 4 * kGiB - kGiB / 2),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "the models' budgets are more than this machine has available:\n"
                       "  model       worker     budget\n"
                       "  tiny         cpu:0   1.00 GiB\n"
                       "  small        cpu:0   2.00 GiB\n"
                       "  small        cpu:1   1.00 GiB\n"
                       "  together             4.00 GiB\n"
                       "  available            3.50 GiB\n"
                       "  too little          512.0 MiB\n"
                       "Give the models less `memory`, or fewer models."));
}

TEST(BudgetCheckTest, HugeFiguresDoNotOverflow) {
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THAT(
      CheckBudgets({{"a", "cpu:0", huge}, {"b", "cpu:0", huge}, {"c", "cpu:0", huge}}, kGiB),
      StatusIs(absl::StatusCode::kResourceExhausted, ::testing::_));
}

}  // namespace
}  // namespace dovetail::coordinator
