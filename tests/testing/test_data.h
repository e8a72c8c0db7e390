// Where tests find real data (never part of the repository), and their random seed.
#ifndef DOVETAIL_TESTS_TESTING_TEST_DATA_H_
#define DOVETAIL_TESTS_TESTING_TEST_DATA_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "gtest/gtest.h"

namespace dovetail::testing {

// $DOVETAIL_DATA/relative, or "" where that file is absent.
inline std::string DataPath(const std::string& relative) {
  const char* root = std::getenv("DOVETAIL_DATA");
  if (root == nullptr) return "";
  std::string path = std::string(root) + "/" + relative;
  return std::ifstream(path).good() ? path : "";
}

inline std::string ReadFileOrDie(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// DOVETAIL_TEST_SEED or a fixed default; printed, so that a failure can be repeated.
inline uint64_t TestSeed() {
  const char* text = std::getenv("DOVETAIL_TEST_SEED");
  uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 0) : 20261121;
  std::printf("DOVETAIL_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace dovetail::testing

#define DT_REQUIRE_DATA(var, relative)                             \
  const std::string var = ::dovetail::testing::DataPath(relative); \
  if (var.empty()) GTEST_SKIP() << "no shared data: " << (relative)

#endif  // DOVETAIL_TESTS_TESTING_TEST_DATA_H_
