#include "coordinator/budget_check.h"

#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr absl::StatusCode kTooMuch = absl::StatusCode::kResourceExhausted;

TEST(BudgetCheckTest, TheSumCounts) {
  const std::vector<WorkerBudget> budgets = {
      {"tiny", "cpu:0", kGiB}, {"small", "cpu:0", 2 * kGiB}, {"small", "cpu:1", kGiB}};
  EXPECT_OK(CheckBudgets(budgets, {{kThisMachine, 4 * kGiB}}));
  EXPECT_THAT(CheckBudgets(budgets, {{kThisMachine, 4 * kGiB - kGiB / 2}}),
              StatusIs(kTooMuch,
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

TEST(BudgetCheckTest, EachMemoryIsItsOwn) {
  const std::vector<WorkerBudget> budgets = {{"a", "cpu:0", 3 * kGiB, "NUMA node 0"},
                                             {"a", "cpu:1", 3 * kGiB, "NUMA node 1"},
                                             {"b", "cpu:0", 2 * kGiB, "NUMA node 0"},
                                             {"b", "cuda:0", 9 * kGiB, "cuda:0"}};
  const std::map<std::string, int64_t> enough = {
      {"NUMA node 0", 5 * kGiB}, {"NUMA node 1", 3 * kGiB}, {"cuda:0", 9 * kGiB}};
  EXPECT_OK(CheckBudgets(budgets, enough));
  std::map<std::string, int64_t> available = enough;
  available["NUMA node 0"] = 4 * kGiB;  // of 17 together
  EXPECT_THAT(CheckBudgets(budgets, available),
              StatusIs(kTooMuch, AllOf(HasSubstr("NUMA node 0 has available"),
                                       HasSubstr("together            5.00 GiB"),
                                       Not(HasSubstr("node 1")), Not(HasSubstr("cuda")))));
  available["cuda:0"] = 8 * kGiB;
  EXPECT_THAT(CheckBudgets(budgets, available),
              StatusIs(kTooMuch, AllOf(HasSubstr("NUMA node 0 has available"),
                                       HasSubstr("cuda:0 has available"))));
}

TEST(BudgetCheckTest, HugeFiguresDoNotOverflow) {
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THAT(CheckBudgets({{"a", "cpu:0", huge}, {"b", "cpu:0", huge}, {"c", "cpu:0", huge}},
                           {{kThisMachine, kGiB}}),
              StatusIs(kTooMuch, ::testing::_));
}

TEST(BudgetCheckTest, WhichMemoryADeviceUses) {
  DeviceInfo device;
  device.name = "cpu:3";
  EXPECT_EQ(MemoryOf(device), kThisMachine);
  device.numa_node = 1;
  EXPECT_EQ(MemoryOf(device), "NUMA node 1");
  device.kind = DeviceKind::kCuda;
  device.name = "cuda:3";
  EXPECT_EQ(MemoryOf(device), "cuda:3");
}

TEST(BudgetLedgerTest, ModelsThatComeOneAfterTheOtherShareANode) {
  const std::string node = "NUMA node 1";
  BudgetLedger ledger;
  EXPECT_OK(ledger.Claim("a", {{"a", "cpu:1", 3 * kGiB, node}}, {{node, 4 * kGiB}}));
  // The first one has been loaded: less is free now, but that is what it claimed.
  EXPECT_OK(ledger.Claim("b", {{"b", "cpu:1", kGiB, node}}, {{node, kGiB}}));
  EXPECT_THAT(ledger.Claim("c", {{"c", "cpu:0", kGiB, node}}, {{node, kGiB / 2}}),
              StatusIs(kTooMuch, AllOf(HasSubstr("together            5.00 GiB"),
                                       HasSubstr("available           4.00 GiB"))));
  EXPECT_OK(ledger.Claim("c", {{"c", "cpu:0", kGiB, "NUMA node 0"}}, {{"NUMA node 0", kGiB}}));
  // Planned again: in place of what it had.
  EXPECT_OK(ledger.Claim("a", {{"a", "cpu:1", 2 * kGiB, node}}, {{node, 0}}));
  EXPECT_OK(ledger.Claim("d", {{"d", "cpu:1", kGiB, node}}, {{node, 0}}));
}

}  // namespace
}  // namespace dovetail::coordinator
