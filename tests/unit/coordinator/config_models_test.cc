// Configurations with a list of models.
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/cpu_topology.h"
#include "coordinator/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

class ConfigModelsTest : public ::testing::Test {
 protected:
  absl::StatusOr<ServeConfig> Load(const std::string& text,
                                   const std::vector<ConfigOverride>& flags = {}) {
    path_ = ::testing::TempDir() + "dovetail_config_models_test.yaml";
    std::ofstream(path_) << text;
    return LoadConfig(path_, flags);
  }
  // The message with the file's name cut to "f".
  std::string Mistakes(const std::string& text, const std::vector<ConfigOverride>& flags = {}) {
    const absl::StatusOr<ServeConfig> config = Load(text, flags);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    return absl::StrReplaceAll(std::string(config.status().message()), {{path_, "f"}});
  }
  std::string path_;
};

TEST_F(ConfigModelsTest, OneModelIsAListOfOne) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Load("model: a.gguf\nmodel_aliases: x,y\n"));
  EXPECT_THAT(config.models, IsEmpty());
  ASSERT_THAT(config.Models(), SizeIs(1));
  EXPECT_EQ(config.Models()[0].model, "a.gguf");
  EXPECT_THAT(config.Models()[0].model_aliases, ElementsAre("x", "y"));
}

TEST_F(ConfigModelsTest, EntriesBeginWithWhatTheFileSays) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Load(R"(
models:
  - model: a.gguf
    model_name: first
    model_aliases: [gpt-4, default]
    rules: a.yaml
    workers: [cpu:0, cpu:1]
    threads: 2
    memory: {cpu:0: 1GiB, cpu:1: 2GiB}
    kv_type: q8_0
    lanes: 3
    tool_parser: hermes
  - gguf_path: dir/b.gguf
    context_length: 256
    memory: {cpu:0: 3GiB}
port: 9000
max_batch_size: 7
context_length: 512
threads: 1
)"));
  EXPECT_EQ(config.port, 9000);
  ASSERT_THAT(config.models, SizeIs(2));
  const ModelSettings& a = config.models[0];
  EXPECT_EQ(ModelNameOf(a), "first");
  EXPECT_THAT(a.model_aliases, ElementsAre("gpt-4", "default"));
  EXPECT_EQ(a.rules, "a.yaml");
  EXPECT_THAT(a.workers, ElementsAre("cpu:0", "cpu:1"));
  EXPECT_EQ(a.threads, 2);
  EXPECT_EQ(a.kv_type, KvType::kQ8_0);
  EXPECT_EQ(a.lanes, 3);
  EXPECT_EQ(a.tool_parser, "hermes");
  EXPECT_EQ(a.max_batch_size, 7);
  EXPECT_EQ(a.context_length, 512);
  const ModelSettings& b = config.models[1];
  EXPECT_EQ(ModelNameOf(b), "b");
  EXPECT_THAT(b.memory, ElementsAre(Pair("cpu:0", int64_t{3} << 30)));
  EXPECT_EQ(b.threads, 1);
  EXPECT_EQ(b.context_length, 256);
  EXPECT_EQ(b.kv_type, KvType::kF16);
  EXPECT_THAT(b.rules, IsEmpty());
}

TEST_F(ConfigModelsTest, CoresAreSharedByAllWorkers) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config,
                       Load("memory: {cpu:0: 1GiB}\nmodels: [{model: a}, {model: b}]\n"));
  const int cores = static_cast<int>(UsableCpus(ReadCpuTopology(), -1).size());
  for (const ModelSettings& model : config.models) {
    EXPECT_EQ(model.threads, std::max(1, cores / 2));
  }
}

TEST_F(ConfigModelsTest, ListsAllMistakesAtOnceWithTheirPlaces) {
  EXPECT_EQ(Mistakes("model: m\n"
                     "cpu_infer: 1\n"
                     "models:\n"
                     "  - model: a.gguf\n"
                     "    port: 3\n"
                     "    kv_type: q8\n"
                     "    workers: [cpu:0, cpu:1]\n"
                     "    memory: {cpu:1: 1GiB}\n"
                     "  - model_name: b\n"
                     "    memory: {cpu:0: 1GiB, cpu:3: 1GiB}\n"
                     "  - just text\n"
                     "  - model: x/a.gguf\n"
                     "    memory: {cpu:0: 1GiB}\n"
                     "  - model: c.gguf\n"
                     "    model_aliases: [a]\n"
                     "    memory: {cpu:0: 1GiB}\n",
                     {{"threads", "3"}, {"log-level", "debug"}}),
            "f:5:5: unknown key `port` in a model of `models`; known: model, gguf_path, "
            "model_name, model_aliases, rules, optimize_config_path, map, override_tensor, "
            "workers, threads, memory, context_length, kv_tokens, cache_lens, kv_swap_tokens, "
            "kv_type, weight_memory, weights, weight_cache, max_batch_size, chunk_size, "
            "chunk_prefill_size, stream_experts, stream_buffer, gpu_links, gpus, numa, "
            "max_new_tokens, max_queue, "
            "max_logit_rows, key_priority, lanes, token_target, preemption, worker_timeout, "
            "recovery_timeout, "
            "chat_template, tool_parser, reasoning_parser\n"
            "f:6:14: `kv_type` must be one of f32, f16, bf16, q8_0, got `q8`\n"
            "f:11:5: a model of `models` must be a map, got `just text`\n"
            "--threads: is of one model: set it in `models` of f\n"
            "f:1:8: `model` is of one model: set it in `models`\n"
            "f:2:12: `cpu_infer` cannot stand beside `models`\n"
            "f:8:13: `memory` of cpu:0 is missing: where there are several models, each of their "
            "workers needs a budget\n"
            "f:9:5: `model` is missing: give a GGUF file with --model or `model:` in the "
            "configuration\n"
            "f:10:13: `memory` names cpu:3, which is not among the workers: cpu:0\n"
            "f:12:5: the name `a` is already that of the model at f:4:5\n"
            "f:15:20: the name `a` is already that of the model at f:4:5");
}

TEST_F(ConfigModelsTest, TheListItself) {
  EXPECT_EQ(Mistakes("models: []\n"),
            "f:1:9: `models` must be a list of models, got an empty list");
  EXPECT_EQ(Mistakes("models: a.gguf\n"), "f:1:9: `models` must be a list of models, got `a.gguf`");
  EXPECT_THAT(Mistakes("models: [{model: a}]\n", {{"model", "b"}}),
              HasSubstr("--model: is of one model: set it in `models` of f"));
  // One model alone may use what is free, as without the list.
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Load("models: [{model: a}]\n"));
  EXPECT_THAT(config.models, SizeIs(1));
}

}  // namespace
}  // namespace dovetail::coordinator
