// TempDir: a directory of one test, removed with its content.
#ifndef DOVETAIL_TESTS_TESTING_TEMP_DIR_H_
#define DOVETAIL_TESTS_TESTING_TEMP_DIR_H_

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "gtest/gtest.h"

namespace dovetail::testing {

class TempDir {
 public:
  TempDir() : path_(::testing::TempDir() + "dovetail-test-XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr) << path_;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_TEMP_DIR_H_
