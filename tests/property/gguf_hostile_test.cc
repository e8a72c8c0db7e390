// Damaged files: whatever the bytes, opening a file ends in success or in a message.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf/gguf_file.h"
#include "model/gguf/gguf_parser.h"
#include "model/inspect.h"
#include "model/model_config.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::IsOk;
using ::dovetail::testing::ReadFileOrDie;
using ::dovetail::testing::TestSeed;
using ::dovetail::testing::WriteFileOrDie;
using ::testing::HasSubstr;

absl::StatusOr<GgufShard> Parse(const std::string& bytes, size_t size) {
  return ParseGguf({reinterpret_cast<const uint8_t*>(bytes.data()), size}, "damaged");
}

std::string TinyLlamaBytes() { return testing::MakeTinyLlama({.vocab = 288}).Serialize(); }

// Any cut of the header, and of the last tensor's data, is refused with a message.
void RefusesEveryCut(const std::string& bytes) {
  const absl::StatusOr<GgufShard> whole = Parse(bytes, bytes.size());
  ASSERT_OK(whole);
  uint64_t data_end = 0;
  for (const GgufTensor& tensor : whole->tensors) {
    data_end = std::max(data_end, tensor.offset + static_cast<uint64_t>(tensor.bytes));
  }
  const uint64_t step = std::max<uint64_t>(1, whole->header_bytes / 3000);
  for (uint64_t size = 0; size < whole->header_bytes; size += step) {
    const absl::StatusOr<GgufShard> cut = Parse(bytes, size);
    ASSERT_FALSE(cut.ok()) << size;
    ASSERT_THAT(std::string(cut.status().message()), HasSubstr("damaged: ")) << size;
  }
  for (uint64_t size : {whole->header_bytes, (whole->header_bytes + data_end) / 2, data_end - 1}) {
    ASSERT_FALSE(Parse(bytes, size).ok()) << size;
  }
  ASSERT_OK(Parse(bytes, data_end));
}

// Flips bytes of the header and uses what still opens as the program would.
void SurvivesFlips(std::string bytes, int rounds) {
  std::srand(static_cast<unsigned>(TestSeed()));
  const std::string path = ::testing::TempDir() + "/gguf_hostile_test.gguf";
  const uint64_t header = Parse(bytes, bytes.size())->header_bytes;
  int opened = 0;
  for (int i = 0; i < rounds; ++i) {
    // The fixed part and the first keys get half of the flips; most of a header is vocabulary.
    const uint64_t range = i % 2 == 0 ? std::min<uint64_t>(header, 900) : header;
    const size_t at = static_cast<size_t>(std::rand()) % range;
    const char before = bytes[at];
    bytes[at] = static_cast<char>(std::rand());
    if (const auto shard = Parse(bytes, bytes.size()); shard.ok() && i % 4 < 2) {
      WriteFileOrDie(path, bytes);
      const auto file = GgufFile::Open(path);
      if (file.ok()) {
        ++opened;
        (void)LoadModelConfig(**file);
        EXPECT_FALSE(InspectJson(**file).empty());
        EXPECT_OK(InspectText(**file));
      }
    }
    bytes[at] = before;
  }
  EXPECT_GT(opened, 0);
  std::filesystem::remove(path);
}

TEST(GgufHostile, RefusesEveryCutOfATinyModel) { RefusesEveryCut(TinyLlamaBytes()); }

TEST(GgufHostile, SurvivesFlipsInATinyModel) { SurvivesFlips(TinyLlamaBytes(), 2000); }

TEST(GgufHostile, RefusesEveryCutOfARealFile) {
  DT_REQUIRE_DATA(path, "golden/llama/model-q4_k_m.gguf");
  RefusesEveryCut(ReadFileOrDie(path));
}

TEST(GgufHostile, SurvivesFlipsInARealFile) {
  DT_REQUIRE_DATA(path, "golden/llama/model-q4_k_m.gguf");
  SurvivesFlips(ReadFileOrDie(path), 1000);
}

// Families with keys and tensors of their own.
TEST(GgufHostile, SurvivesFlipsInFilesWithExperts) {
  for (const char* family :
       {"glm4moe/model-bf16-nextn", "gpt-oss/model-bf16", "qwen2moe/model-bf16"}) {
    DT_REQUIRE_DATA(path, std::string("golden/") + family + ".gguf");
    SurvivesFlips(ReadFileOrDie(path), 400);
  }
}

}  // namespace
}  // namespace dovetail::model
