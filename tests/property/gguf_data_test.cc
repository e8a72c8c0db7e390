// Every published file at hand opens; those of other families are refused by name and nothing else.
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/arch/registry.h"
#include "model/gguf/gguf_file.h"
#include "model/inspect.h"
#include "model/model_config.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::model {
namespace {

namespace fs = std::filesystem;
using ::dovetail::testing::IsOk;
using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> GgufFilesIn(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") paths.push_back(entry.path().string());
  }
  return paths;
}

bool HasUnsupportedTypes(const GgufFile& file) {
  for (const GgufTensor& tensor : file.tensors()) {
    if (!IsSupported(tensor.type)) return true;
  }
  return false;
}

TEST(GgufData, EveryGoldenFileOpensOrIsRefusedForAReason) {
  DT_REQUIRE_DATA(readme, "golden/README.md");
  const std::vector<std::string> paths = GgufFilesIn(fs::path(readme).parent_path().string());
  ASSERT_GT(paths.size(), 40u);
  int loaded = 0;
  for (const std::string& path : paths) {
    SCOPED_TRACE(path);
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    EXPECT_GT(file->tensors().size(), 0u);
    EXPECT_OK(InspectText(*file));
    EXPECT_FALSE(InspectJson(*file).empty());
    ASSERT_OK_AND_ASSIGN(const std::string architecture, file->GetString("general.architecture"));
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(*file);
    if (model::FindFamily(architecture) == nullptr) {
      EXPECT_THAT(config, StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("architecture \"" + architecture +
                                             "\" is not supported (supported: ")));
    } else if (HasUnsupportedTypes(*file)) {
      EXPECT_THAT(config, StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("is not supported (supported: F32, F16, Q4_0")));
    } else {
      EXPECT_OK(config);
      ++loaded;
    }
  }
  EXPECT_GE(loaded, 7);  // bf16 twice, q4_0, q4_1, q8_0, q4_k_m, q6_k
}

TEST(GgufData, ADirectoryOfManyModelsIsRefusedWithTheirNames) {
  DT_REQUIRE_DATA(path, "golden/llama/model-bf16.gguf");
  EXPECT_THAT(GgufFile::Open(fs::path(path).parent_path().string()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model-bf16.gguf, ")));
}

TEST(GgufData, SplitAndWholeFileAgree) {
  DT_REQUIRE_DATA(whole_path, "golden/deepseek2/model-bf16.gguf");
  DT_REQUIRE_DATA(shard_path, "golden/deepseek2/split/split-bf16-00002-of-00003.gguf");
  ASSERT_OK_AND_ASSIGN(const auto whole, GgufFile::Open(whole_path));
  ASSERT_OK_AND_ASSIGN(const auto split, GgufFile::Open(shard_path));
  EXPECT_EQ(split->shard_paths().size(), 3u);
  ASSERT_EQ(split->tensors().size(), whole->tensors().size());
  for (const GgufTensor& tensor : whole->tensors()) {
    const GgufTensor* same = split->FindTensor(tensor.name);
    ASSERT_NE(same, nullptr) << tensor.name;
    EXPECT_EQ(whole->Data(tensor), split->Data(*same)) << tensor.name;
  }
}

TEST(GgufData, VocabularyOnlyFilesAreRefused) {
  DT_REQUIRE_DATA(path, "tokenizers/pre-tokenizers/vocab.gguf");
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  EXPECT_THAT(LoadModelConfig(*file),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("llama.block_count: is 1, but the file has only 0 tensors")));
}

TEST(GgufData, OldFilesLoad) {
  for (const char* name :
       {"models/stories260K/stories260Ktok512.gguf", "models/llama-2-tiny-random.gguf"}) {
    DT_REQUIRE_DATA(path, name);
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
    EXPECT_EQ(config.head_dim * config.num_attention_heads, config.hidden_size);
    EXPECT_EQ(config.vocab_size, file->FindTensor("output.weight")->rows());
  }
}

}  // namespace
}  // namespace dovetail::model
