// DT_CHECK*: for what only we can break. Prints the place and the condition, then aborts; it is on
// in every build. What the world can do (files, requests, peers) returns absl::Status instead.
#ifndef DOVETAIL_BASE_CHECK_H_
#define DOVETAIL_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define DT_CHECK(cond)                                                              \
  do {                                                                              \
    if (!(cond)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #cond); \
      std::abort();                                                                 \
    }                                                                               \
  } while (false)
#define DT_CHECK_EQ(a, b) DT_CHECK((a) == (b))
#define DT_CHECK_NE(a, b) DT_CHECK((a) != (b))
#define DT_CHECK_LT(a, b) DT_CHECK((a) < (b))
#define DT_CHECK_LE(a, b) DT_CHECK((a) <= (b))
#define DT_CHECK_GT(a, b) DT_CHECK((a) > (b))
#define DT_CHECK_GE(a, b) DT_CHECK((a) >= (b))

#endif  // DOVETAIL_BASE_CHECK_H_
