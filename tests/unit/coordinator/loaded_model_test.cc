#include "coordinator/loaded_model.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(LoadedModelTest, OpensAModelAndNamesItByItsFile) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/loaded-", ::getpid(), ".Q8.gguf");
  testing::WriteTinyLlama(path);
  ServeConfig config;
  config.model = path;
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, OpenModel(config));
  EXPECT_EQ(model.name, absl::StrCat("loaded-", ::getpid(), ".Q8"));
  EXPECT_EQ(model.path, std::filesystem::path(path).lexically_normal());
  EXPECT_EQ(model.config.architecture, "llama");
  EXPECT_TRUE(model.tokenizer->has_vocab());
  EXPECT_NE(model.chat_template, nullptr);
  config.model_name = "mine";
  ASSERT_OK_AND_ASSIGN(const LoadedModel named, OpenModel(config));
  EXPECT_EQ(named.name, "mine");
  std::filesystem::remove(path);
}

TEST(LoadedModelTest, ATemplateThatDoesNotParseOnlyCostsTheChat) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/template-", ::getpid(), ".gguf");
  testing::TinyLlamaOptions tiny;
  tiny.tokenizer = false;
  auto writer = testing::MakeTinyLlama(tiny);
  writer.AddString("tokenizer.chat_template", "{% if %}");
  writer.Write(path);
  ServeConfig config;
  config.model = path;
  ASSERT_OK_AND_ASSIGN(const LoadedModel model, OpenModel(config));
  EXPECT_EQ(model.chat_template, nullptr);
  std::filesystem::remove(path);
}

TEST(LoadedModelTest, TheShapeFollowsConfigurationAndModel) {
  model::ModelConfig model;
  model.max_position_embeddings = 131072;
  model.num_hidden_layers = 3;
  model.num_key_value_heads = 2;
  model.head_dim = 8;
  ServeConfig config;
  config.max_batch_size = 4;
  config.chunk_size = 100;
  ASSERT_OK_AND_ASSIGN(StepShape shape, MakeStepShape(config, model));
  EXPECT_EQ(shape.context_length, 8192) << "a long context is not paid for unasked";
  EXPECT_EQ(shape.num_kv_blocks, 2 * 8192 / kKvBlockTokens);
  EXPECT_EQ(shape.max_rows, 104) << "every decode fits beside a full chunk";
  EXPECT_EQ(shape.max_sequences, 4);
  EXPECT_EQ(shape.max_logit_rows, 64) << "logprobs of a prompt come in no fewer";
  // keys and values, 2 heads of 8, f16, 3 layers
  EXPECT_EQ(KvCacheBytes(model, shape), int64_t{2} * 8192 * 3 * 2 * (2 * 8 * 2));

  model.max_position_embeddings = 100;
  ASSERT_OK_AND_ASSIGN(shape, MakeStepShape(config, model));
  EXPECT_EQ(shape.context_length, 100);
  config.max_batch_size = 50;
  ASSERT_OK_AND_ASSIGN(shape, MakeStepShape(config, model));
  EXPECT_EQ(shape.num_kv_blocks, 50) << "a block for every sequence";
  config.kv_tokens = 65;
  config.max_logit_rows = 1'000'000;
  ASSERT_OK_AND_ASSIGN(shape, MakeStepShape(config, model));
  EXPECT_EQ(shape.num_kv_blocks, 3);
  EXPECT_EQ(shape.max_logit_rows, shape.max_rows);

  config.context_length = 101;
  EXPECT_THAT(MakeStepShape(config, model), StatusIs(absl::StatusCode::kInvalidArgument,
                                                     AllOf(HasSubstr("101"), HasSubstr("100"))));
}

}  // namespace
}  // namespace dovetail::coordinator
