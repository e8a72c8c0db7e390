// The bits of a numerics version (docs/numerics.md) do not change from commit to commit, nor from
// one processor to another: digests of the logits of every golden model, and of a real one.
//
// A digest that differs is a new numerics version, or a mistake. The test prints what it found, in
// the form of numerics_digests.txt.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail {
namespace {

constexpr int kTokens = 48;
constexpr int kVocab = 256;  // ids that every model has

// By the model's name: "llama/model-q4_k_m.gguf".
std::map<std::string, std::string> ReadDigests() {
  std::ifstream in(DOVETAIL_DIGESTS);
  std::map<std::string, std::string> digests;
  for (std::string name, digest; in >> name >> digest;) digests[name] = digest;
  return digests;
}

std::string DigestOf(const testing::Logits& logits) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const std::vector<float>& row : logits) {
    XXH3_64bits_update(&state, row.data(), row.size() * sizeof(float));
  }
  return absl::StrCat(absl::Hex(XXH3_64bits_digest(&state), absl::kZeroPad16));
}

void ExpectDigest(const std::string& name, const std::string& gguf) {
  const std::map<std::string, std::string> digests = ReadDigests();
  const auto found = digests.find(name);
  const std::string expected = found == digests.end() ? "none" : found->second;
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    testing::LocalPipelineOptions options;
    options.gguf = gguf;
    options.kernels = table;
    options.shape.kv_type = KvType::kF16;
    ASSERT_OK_AND_ASSIGN(const testing::Logits logits,
                         testing::EvaluateSequence(options, kTokens, kVocab, 20));
    const std::string actual = DigestOf(logits);
    EXPECT_EQ(expected, actual) << table->name << "; the line would be: " << name << " " << actual;
  }
}

TEST(NumericsDigest, GoldenModelsHaveTheBitsThatTheyHad) {
  const std::string root = testing::DataPath("golden/README.md");
  if (root.empty()) GTEST_SKIP() << "no golden models here";
  std::vector<std::string> models;
  const std::filesystem::path folder = std::filesystem::path(root).parent_path();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    if (entry.path().extension() == ".gguf" && name.find("split/") == std::string::npos) {
      models.push_back(name);
    }
  }
  ASSERT_FALSE(models.empty());
  std::sort(models.begin(), models.end());
  for (const std::string& name : models) ExpectDigest(name, folder / name);
}

TEST(NumericsDigest, ARealModelHasTheBitsThatItHad) {
  const char* path = std::getenv("DOVETAIL_SMOLLM2");
  if (path == nullptr) GTEST_SKIP() << "DOVETAIL_SMOLLM2 does not name the model file";
  ExpectDigest("SmolLM2-135M-Instruct.Q4_1.gguf", path);
}

}  // namespace
}  // namespace dovetail
