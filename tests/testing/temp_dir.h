// TempDir: a directory of one test, removed with its content. TempFile: where a file of this
// process alone may be written; two must not share a model, which is read in place.
#ifndef DOVETAIL_TESTS_TESTING_TEMP_DIR_H_
#define DOVETAIL_TESTS_TESTING_TEMP_DIR_H_

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace dovetail::testing {

inline std::string TempFile(absl::string_view name) {
  return absl::StrCat(::testing::TempDir(), "/", ::getpid(), "-", name);
}

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
