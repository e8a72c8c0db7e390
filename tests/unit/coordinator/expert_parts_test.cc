#include "coordinator/placement/expert_parts.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;

Op Experts(int begin, int end) { return {OpKind::kExperts, 0, begin, end}; }

TEST(DivideExperts, CutsWhereTheOwnerChanges) {
  const std::vector<Op> ops = {{OpKind::kRouter, 0}, Experts(0, 6), {OpKind::kAttention, 1}};
  EXPECT_THAT(DivideExperts(ops, [](const Op& op) { return op.expert_begin / 3; }),
              ElementsAre(ops[0], Experts(0, 3), Experts(3, 6), ops[2]));
  EXPECT_THAT(DivideExperts(ops, [](const Op& op) { return op.expert_begin == 4 ? 1 : 0; }),
              ElementsAre(ops[0], Experts(0, 4), Experts(4, 5), Experts(5, 6), ops[2]));
  EXPECT_EQ(DivideExperts(ops, [](const Op&) { return 7; }), ops);
}

std::vector<size_t> Order(const std::vector<std::string>& workers) {
  std::vector<Op> ops = {{OpKind::kRouter, 0}};
  while (ops.size() + 1 < workers.size()) {
    const int n = static_cast<int>(ops.size());
    ops.push_back(Experts(n - 1, n));
  }
  ops.push_back({OpKind::kAttention, 1});
  return OrderForFewHops(ops, workers);
}

TEST(OrderForFewHops, KeepsRangesOfAWorkerTogether) {
  EXPECT_THAT(Order({"x", "a", "b", "a", "b", "x"}), ElementsAre(0, 1, 3, 2, 4, 5));
  EXPECT_THAT(Order({"x", "a", "a", "b", "b", "x"}), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(OrderForFewHops, BeginsWithTheWorkerBeforeAndEndsWithTheOneAfter) {
  EXPECT_THAT(Order({"b", "a", "b", "c", "b", "c"}), ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_THAT(Order({"x", "c", "a", "b", "a", "c"}), ElementsAre(0, 2, 4, 3, 1, 5));
  // Both before and after: once is enough.
  EXPECT_THAT(Order({"b", "a", "b", "a", "b"}), ElementsAre(0, 2, 1, 3, 4));
}

TEST(OrderForFewHops, LeavesLayersApart) {
  const std::vector<Op> ops = {{OpKind::kExperts, 0, 0, 1},
                               {OpKind::kExperts, 0, 1, 2},
                               {OpKind::kExperts, 1, 0, 1},
                               {OpKind::kExperts, 1, 1, 2}};
  EXPECT_THAT(OrderForFewHops(ops, std::vector<std::string>{"a", "b", "a", "b"}),
              ElementsAre(1, 0, 3, 2))
      << "the ranges of a come last in layer 0, next to those of layer 1";
}

}  // namespace
}  // namespace dovetail::coordinator
