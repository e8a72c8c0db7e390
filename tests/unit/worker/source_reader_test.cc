#include "worker/source_reader.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::worker {
namespace {

class SourceReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "source_reader-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    testing::WriteTinyLlama(dir_ + "/model.gguf", {});
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(dir_ + "/model.gguf"));
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // Longer than what is read ahead at most; what lies outside the tensor is not asked for.
  std::vector<SourceReader::Part> LongParts() const {
    const model::GgufTensor* const tensor = &file_->tensors()[0];
    return {{tensor, 0, tensor->bytes}, {tensor, 0, 3 * SourceReader::kMostAhead}};
  }

  std::string dir_;
  std::unique_ptr<model::GgufFile> file_;
};

TEST_F(SourceReaderTest, EndsWhileItWaitsForPacking) {
  SourceReader reader(*file_, LongParts());
  reader.SetPacked(1);
}

TEST_F(SourceReaderTest, EndsBehindTheLastPart) {
  SourceReader reader(*file_, LongParts());
  reader.SetPacked(4 * SourceReader::kMostAhead);
}

TEST_F(SourceReaderTest, NothingToRead) { SourceReader reader(*file_, {}); }

}  // namespace
}  // namespace dovetail::worker
