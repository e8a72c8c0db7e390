// IsOk and StatusIs for absl::Status, until Debian's Abseil has them.
#ifndef DOVETAIL_TESTS_TESTING_STATUS_MATCHERS_H_
#define DOVETAIL_TESTS_TESTING_STATUS_MATCHERS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"

namespace dovetail::testing {

inline const absl::Status& StatusOf(const absl::Status& s) { return s; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& s) {
  return s.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

MATCHER_P2(StatusIs, code, message, "") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         ::testing::ExplainMatchResult(message, std::string(StatusOf(arg).message()),
                                       result_listener);
}

}  // namespace dovetail::testing

#define ASSERT_OK(expr) ASSERT_THAT((expr), ::dovetail::testing::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT((expr), ::dovetail::testing::IsOk())
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(DT_TEST_CAT(r_, __LINE__), lhs, expr)
#define DT_TEST_CAT2(a, b) a##b
#define DT_TEST_CAT(a, b) DT_TEST_CAT2(a, b)
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  ASSERT_OK(tmp);                                 \
  lhs = std::move(tmp).value()

#endif  // DOVETAIL_TESTS_TESTING_STATUS_MATCHERS_H_
