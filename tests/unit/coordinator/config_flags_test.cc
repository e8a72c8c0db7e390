#include "coordinator/config_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ServeConfig> Parse(const std::string& command_line) {
  CLI::App app;
  ConfigFlags flags;
  flags.AddTo(&app);
  app.parse(command_line);
  return flags.Load();
}

TEST(ConfigFlagsTest, FlagsSetTheConfiguration) {
  ASSERT_OK_AND_ASSIGN(
      const ServeConfig config,
      Parse("--model m.gguf --rules r.yaml --workers cpu:0,cpu:1 --port 9000 --kv-type f32 "
            "--context-length 100 --worker-timeout 2s --memory cpu:0=1GiB --spawn-workers false"));
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.rules, "r.yaml");
  EXPECT_THAT(config.workers, ElementsAre("cpu:0", "cpu:1"));
  EXPECT_EQ(config.port, 9000);
  EXPECT_EQ(config.kv_type, KvType::kF32);
  EXPECT_EQ(config.context_length, 100);
  EXPECT_EQ(config.worker_timeout, absl::Seconds(2));
  EXPECT_EQ(config.memory.at("cpu:0"), int64_t{1} << 30);
  EXPECT_FALSE(config.spawn_workers);
}

TEST(ConfigFlagsTest, UnderscoresAreAccepted) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Parse("--model m --max_batch_size 7"));
  EXPECT_EQ(config.max_batch_size, 7);
}

TEST(ConfigFlagsTest, CommandLinesOfKTransformersAreAccepted) {
  ASSERT_OK_AND_ASSIGN(
      const ServeConfig config,
      Parse("--model_path deepseek-ai/DeepSeek-R1 --gguf_path m.gguf --optimize_config_path r.yaml "
            "--cache_lens 28000 --chunk_size 128 --max_batch_size 3 --max_new_tokens 4096 "
            "--cpu_infer 1 --backend_type balance_serve"));
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.rules, "r.yaml");
  EXPECT_EQ(config.kv_tokens, 28000);
  EXPECT_EQ(config.chunk_size, 128);
  EXPECT_EQ(config.max_batch_size, 3);
  EXPECT_EQ(config.max_new_tokens, 4096);
  EXPECT_EQ(config.threads, 1);
}

TEST(ConfigFlagsTest, EveryFlagIsAKeyOfTheConfiguration) {
  CLI::App app;
  ConfigFlags flags;
  flags.AddTo(&app);
  int checked = 0;
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_lnames().front();
    if (name == "help" || name == "config") continue;
    ++checked;
    // A value that no key takes: a known key complains about it by name or takes it, an unknown
    // flag says so.
    const auto loaded = LoadConfig("", {{name, ""}});
    EXPECT_THAT(std::string(loaded.status().message()), ::testing::Not(HasSubstr("nknown")))
        << name;
  }
  EXPECT_GE(checked, 20);
}

TEST(ConfigFlagsTest, AllMistakesAreReportedAtOnce) {
  EXPECT_THAT(Parse("--model m --port 99999 --kv-type f64"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--port: "), HasSubstr("--kv-type: "))));
}

}  // namespace
}  // namespace dovetail::coordinator
