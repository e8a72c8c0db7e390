// The models that tests write are ones that the program can use.
#include "tests/testing/tiny_llama.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::testing {
namespace {

TEST(TinyLlama, SameOptionsSameBytes) {
  const TinyLlamaOptions options = {.type = WeightType::kQ8_0, .seed = 5};
  EXPECT_EQ(MakeTinyLlama(options).Serialize(), MakeTinyLlama(options).Serialize());
  TinyLlamaOptions other = options;
  other.seed = 6;
  EXPECT_NE(MakeTinyLlama(other).Serialize(), MakeTinyLlama(options).Serialize());
}

TEST(TinyLlama, ItsTokenizerRoundTrips) {
  const std::string path = ::testing::TempDir() + "/tiny_llama_test.gguf";
  WriteTinyLlama(path);
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path));
  ASSERT_OK(model::LoadModelConfig(*file));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, model::Tokenizer::Create(*file));
  EXPECT_EQ(tokenizer->vocab_size(), 320);
  const std::string text = "The rain in Spain, 1 \xc3\xa9t\xc3\xa9!";
  ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->Encode(text, {}));
  EXPECT_LT(ids.size(), text.size());  // merges apply
  EXPECT_EQ(tokenizer->Decode(ids, false), text);
  ASSERT_OK_AND_ASSIGN(const auto special, tokenizer->Encode("<|im_end|>", {true, true}));
  EXPECT_THAT(special, ::testing::ElementsAre(2));
}

TEST(TinyLlama, NoVocabulary) {
  const std::string path = ::testing::TempDir() + "/tiny_llama_test.gguf";
  WriteTinyLlama(path, {.tokenizer = false});
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path));
  ASSERT_OK(model::LoadModelConfig(*file));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, model::Tokenizer::Create(*file));
  EXPECT_FALSE(tokenizer->has_vocab());
}

}  // namespace
}  // namespace dovetail::testing
