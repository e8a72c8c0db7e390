#include "coordinator/config.h"

#include <fstream>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ConfigTest : public ::testing::Test {
 protected:
  absl::StatusOr<ServeConfig> Load(const std::string& text,
                                   const std::vector<ConfigOverride>& flags = {}) {
    path_ = ::testing::TempDir() + "dovetail_config_test.yaml";
    std::ofstream(path_) << text;
    return LoadConfig(path_, flags);
  }
  // The message with the file's name cut to "f".
  std::string Mistakes(const std::string& text, const std::vector<ConfigOverride>& flags = {}) {
    const absl::StatusOr<ServeConfig> config = Load(text, flags);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    std::string message(config.status().message());
    message = absl::StrReplaceAll(message, {{path_, "f"}});
    return message;
  }
  std::string path_;
};

TEST_F(ConfigTest, FlagsAloneGiveDefaults) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, LoadConfig("", {{"model", "m.gguf"}}));
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.listen, "127.0.0.1");
  EXPECT_EQ(config.port, 8080);
  EXPECT_THAT(config.workers, ElementsAre("cpu:0"));
  EXPECT_EQ(config.kv_type, KvType::kF16);
  EXPECT_EQ(config.weights, "packed");
  EXPECT_EQ(config.chunk_size, 512);
}

TEST_F(ConfigTest, ReadsEveryKey) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Load(R"(
model: m.gguf
model_name: tiny
rules: r.yaml
workers: [cpu:0, cpu:1]
spawn_workers: false
threads: 3
run_dir: /dev/shm/x
memory: {cpu:0: 8GiB, cpu:1: 512MiB}
listen: 0.0.0.0
port: 9000
grpc_port: 9100
context_length: 4096
kv_tokens: 8192
kv_type: f32
weights: in_place
weight_cache: /var/cache/dovetail
max_batch_size: 16
chunk_size: 128
max_new_tokens: 100
max_queue: 10
api_keys: {alice: sk-alice-1234, bob: sk-bob-12345}
key_priority: {alice: -10, bob: 5}
max_logit_rows: 64
lanes: 2
request_timeout: 90
worker_timeout: 500ms
drain_timeout: 1m
log_level: debug
)"));
  EXPECT_EQ(config.model_name, "tiny");
  EXPECT_EQ(config.rules, "r.yaml");
  EXPECT_THAT(config.workers, ElementsAre("cpu:0", "cpu:1"));
  EXPECT_FALSE(config.spawn_workers);
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.run_dir, "/dev/shm/x");
  EXPECT_THAT(config.memory, UnorderedElementsAre(Pair("cpu:0", int64_t{8} << 30),
                                                  Pair("cpu:1", int64_t{512} << 20)));
  EXPECT_EQ(config.listen, "0.0.0.0");
  EXPECT_EQ(config.port, 9000);
  EXPECT_EQ(config.grpc_port, 9100);
  EXPECT_EQ(config.context_length, 4096);
  EXPECT_EQ(config.kv_tokens, 8192);
  EXPECT_EQ(config.kv_type, KvType::kF32);
  EXPECT_EQ(config.weights, "in_place");
  EXPECT_EQ(config.weight_cache, "/var/cache/dovetail");
  EXPECT_EQ(config.max_batch_size, 16);
  EXPECT_EQ(config.chunk_size, 128);
  EXPECT_EQ(config.max_new_tokens, 100);
  EXPECT_EQ(config.max_queue, 10);
  EXPECT_THAT(config.key_priority, ElementsAre(Pair("alice", -10), Pair("bob", 5)));
  EXPECT_EQ(config.max_logit_rows, 64);
  EXPECT_EQ(config.lanes, 2);
  EXPECT_EQ(config.request_timeout, absl::Seconds(90));
  EXPECT_EQ(config.worker_timeout, absl::Milliseconds(500));
  EXPECT_EQ(config.drain_timeout, absl::Minutes(1));
  EXPECT_EQ(config.log_level, "debug");
}

TEST_F(ConfigTest, AcceptsTheNamesOfKTransformers) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config, Load(R"(
gguf_path: m.gguf
optimize_config_path: r.yaml
cache_lens: 4096
chunk_prefill_size: 64
cpu_infer: 1
workers: cpu:0
model_path: deepseek-ai/DeepSeek-V3
backend_type: balance_serve
max_batch_size: 3
max_new_tokens: 500
)"));
  EXPECT_EQ(config.model, "m.gguf");
  EXPECT_EQ(config.rules, "r.yaml");
  EXPECT_EQ(config.kv_tokens, 4096) << "the whole cache, for all sequences";
  EXPECT_EQ(config.context_length, 0);
  EXPECT_EQ(config.chunk_size, 64);
  EXPECT_EQ(config.threads, 1);
  EXPECT_TRUE(config.own_cores);
  EXPECT_EQ(config.max_batch_size, 3);
  EXPECT_EQ(config.max_new_tokens, 500);
}

TEST_F(ConfigTest, FlagsGoOverTheFile) {
  ASSERT_OK_AND_ASSIGN(
      const ServeConfig config,
      Load("model: a.gguf\nport: 1\nmemory: {cpu:0: 1GiB}\n", {{"model", "b.gguf"},
                                                               {"max-batch-size", "4"},
                                                               {"workers", "cpu:2, cpu:3"},
                                                               {"memory", "cpu:2=1GB,cpu:3=2GB"},
                                                               {"spawn-workers", "false"}}));
  EXPECT_EQ(config.model, "b.gguf");
  EXPECT_EQ(config.port, 1);
  EXPECT_EQ(config.max_batch_size, 4);
  EXPECT_THAT(config.workers, ElementsAre("cpu:2", "cpu:3"));
  EXPECT_THAT(config.memory,
              UnorderedElementsAre(Pair("cpu:2", 1'000'000'000), Pair("cpu:3", 2'000'000'000)));
  EXPECT_FALSE(config.spawn_workers);
}

TEST_F(ConfigTest, ListsAllMistakesAtOnceWithTheirPlaces) {
  EXPECT_EQ(
      Mistakes("port: 70000\n"
               "chunk: 5\n"
               "workers: [cpu:0, cuda:0, cpu:0, disk]\n"
               "kv_type: q8\n"
               "port: 3\n"
               "listen: example\n"
               "memory: {cpu:9: 1GiB, cpu:0: lots}\n"
               "request_timeout: soon\n"
               "spawn_workers: perhaps\n"
               "log_level: loud\n"
               "weights: unpacked\n",
               {{"lanes", "0"}, {"prot", "3"}}),
      "f:1:7: `port` must be a number from 0 to 65535, got `70000`\n"
      "f:2:1: unknown key `chunk` in the configuration; known: "
      "model, gguf_path, model_path, backend_type, model_name, model_aliases, rules, "
      "optimize_config_path, "
      "map, override_tensor, workers, "
      "spawn_workers, threads, cpu_infer, run_dir, memory, listen, port, grpc_port, "
      "api_keys, api_keys_file, tls_certificate, tls_key, cluster_key_file, max_connections, "
      "context_length, kv_tokens, cache_lens, kv_swap_tokens, kv_type, weight_memory, weights, "
      "weight_cache, max_batch_size, chunk_size, chunk_prefill_size, stream_experts, "
      "stream_buffer, gpu_links, gpus, numa, max_new_tokens, max_queue, "
      "max_logit_rows, "
      "key_priority, lanes, "
      "token_target, preemption, request_timeout, worker_timeout, recovery_timeout, drain_timeout, "
      "chat_template, tool_parser, reasoning_parser, log_level, models\n"
      "f:3:26: `workers`: `cpu:0` is named twice\n"
      "f:3:33: `workers`: `disk` is not a worker's name; expected cpu:N or cuda:N, as in cpu:0, "
      "or of another host host-b/cpu:0\n"
      "f:4:10: `kv_type` must be one of f32, f16, bf16, q8_0, got `q8`\n"
      "f:5:1: `port` is given twice, first at f:1:1\n"
      "f:6:9: `listen` must be an IP address such as 127.0.0.1, got `example`\n"
      "f:7:30: `memory` of cpu:0: `lots` is not a size such as 8GiB, 512MiB, 1.5GB or 1000\n"
      "f:8:18: `request_timeout` must be a time such as 30s, 1500ms or 10m, got `soon`\n"
      "f:9:16: `spawn_workers` must be true or false, got `perhaps`\n"
      "f:10:12: `log_level` must be one of debug, info, warn, error, off, got `loud`\n"
      "f:11:10: `weights` must be packed or in_place, got `unpacked`\n"
      "--lanes: `lanes` must be a number from 1 to 64, got `0`\n"
      "--prot: unknown flag; did you mean --port?\n"
      "f: `model` is missing: give a GGUF file with --model or `model:` in the configuration\n"
      "f:7:9: `memory` names cpu:9, which is not among the workers: cpu:0, cuda:0");
}

TEST_F(ConfigTest, WorkersOfOtherHostsNeedAKey) {
  EXPECT_EQ(
      Mistakes("model: m\nworkers: [cpu:0, host-b/cuda:1]\n"),
      "f:2:10: `workers`: host-b/cuda:1 is of another host, and the worker there needs a key: "
      "give `cluster_key_file`");
  EXPECT_EQ(Mistakes("model: m\nworkers: [host-b/disk]\n"),
            "f:2:11: `workers`: `host-b/disk` is not a worker's name; expected cpu:N or cuda:N, as "
            "in cpu:0, or of another host host-b/cpu:0");
  EXPECT_EQ(Mistakes("model: m\nworkers: [\"a b/cpu:0\", a/b/cpu:0]\n"),
            "f:2:11: `workers`: `a b/cpu:0` is not a worker's name; expected cpu:N or cuda:N, as "
            "in cpu:0, or of another host host-b/cpu:0\n"
            "f:2:24: `workers`: `a/b/cpu:0` is not a worker's name; expected cpu:N or cuda:N, as "
            "in cpu:0, or of another host host-b/cpu:0");
  EXPECT_EQ(Mistakes(absl::StrCat("model: m\nworkers: [", std::string(41, 'h'), "/cpu:0]\n")),
            absl::StrCat("f:2:11: `workers`: `", std::string(41, 'h'),
                         "/cpu:0`: the name of a host has at most 40 characters"));
  const std::string key = ::testing::TempDir() + "dovetail_config_test.key";
  std::ofstream(key) << "  0123456789abcdef\n";
  ASSERT_OK_AND_ASSIGN(const ServeConfig config,
                       Load(absl::StrCat("model: m\nworkers: [cpu:0, host-b/cuda:1]\n"
                                         "cluster_key_file: ",
                                         key, "\n")));
  EXPECT_EQ(config.cluster_key, "0123456789abcdef");
  EXPECT_THAT(config.LocalWorkers(), ElementsAre("cpu:0"));
  std::ofstream(key) << "0123456789 abcdef";
  EXPECT_EQ(Mistakes(absl::StrCat("model: m\ncluster_key_file: ", key, "\n")),
            absl::StrCat("`cluster_key_file`: ", key,
                         ": a cluster's key is one word of printable characters"));
}

TEST_F(ConfigTest, ChecksWhatFieldsSayTogether) {
  EXPECT_EQ(Mistakes("model: m\nport: 80\ngrpc_port: 80\n"),
            "f:3:12: `port` and `grpc_port` are both 80");
  EXPECT_EQ(Mistakes("model: m\ncontext_length: 100\nkv_tokens: 64\n"),
            "f:3:12: `kv_tokens` (64) is less than `context_length` (100): no sequence could use "
            "its context");
  EXPECT_EQ(Mistakes("model: m\ngguf_path: n\n"),
            "f:2:1: `gguf_path` and `model` are the same setting; give one of them");
  EXPECT_EQ(Mistakes("model: m\ncpu_infer: 1\nthreads: 2\n"),
            "f:2:12: `cpu_infer` (threads of all workers) and `threads` (of each worker) exclude "
            "each other");
  EXPECT_THAT(Mistakes("model: m\ncpu_infer: 4096\n"),
              HasSubstr("f:2:12: `cpu_infer` is 4096, but this machine has "));
  EXPECT_EQ(Mistakes("model: m\ncpu_infer: 1\nworkers: [cpu:0, cpu:1]\n"),
            "f:2:12: `cpu_infer` is 1, fewer than the 2 workers that share it");
  EXPECT_EQ(Mistakes("model: m\nport: 65535\n"),
            "f:2:7: `grpc_port` is `port` + 1, which is beyond 65535; set it");
}

TEST_F(ConfigTest, GpusAndWhatGoesToThem) {
  ASSERT_OK_AND_ASSIGN(const ServeConfig config,
                       Load("model: m\nworkers: [cuda:0, cuda:1, cpu:0]\ngpus: {cuda:1: 0}\n"
                            "gpu_links: auto\nstream_experts: 1024\nstream_buffer: 1GiB\n"));
  EXPECT_EQ(config.gpus.at("cuda:1"), 0);
  EXPECT_EQ(config.gpu_links, GpuLinks::kAuto);
  EXPECT_EQ(config.stream_rows, 1024);
  EXPECT_EQ(config.stream_buffer, int64_t{1} << 30);
  EXPECT_EQ(Load("model: m\nstream_experts: auto\n")->stream_rows, -1);
  EXPECT_EQ(Load("model: m\nstream_experts: off\n")->stream_rows, 0);
  EXPECT_THAT(Load("model: m\ngpus: {cpu:0: 1, cuda:1: x}\ngpu_links: fast\nstream_experts: 0\n"
                   "stream_buffer: 7\n")
                  .status()
                  .message(),
              AllOf(HasSubstr("`gpus` names cpu:0"), HasSubstr("got `x`"),
                    HasSubstr("`gpu_links` must be one of host, auto, ipc, nccl, got `fast`"),
                    HasSubstr("`stream_experts` must be off, auto or a number"),
                    HasSubstr("`stream_buffer` must be a size")));
}

TEST_F(ConfigTest, NodesOfCpuWorkers) {
  EXPECT_TRUE(Load("model: m\n")->numa_auto);
  EXPECT_FALSE(Load("model: m\nnuma: none\n")->numa_auto);
  ASSERT_OK_AND_ASSIGN(const ServeConfig config,
                       Load("model: m\nworkers: [cpu:0, cpu:1]\nnuma: {cpu:0: 1, cpu:1: 0}\n"));
  EXPECT_FALSE(config.numa_auto);
  EXPECT_EQ(config.numa.at("cpu:0"), 1);
  EXPECT_THAT(Load("model: m\nnuma: {cuda:0: 1, cpu:0: x}\n").status().message(),
              AllOf(HasSubstr("`numa` names cuda:0"), HasSubstr("got `x`")));
  EXPECT_THAT(Load("model: m\nnuma: all\n").status().message(),
              HasSubstr("`numa` must be worker and node, as in cpu:0=0, or auto or none"));
}

TEST_F(ConfigTest, PrioritiesAreOfKeysThatAreThere) {
  const std::string keys = "model: m\napi_keys: {alice: sk-alice-1234}\n";
  EXPECT_EQ(Mistakes(keys + "key_priority: {alice: 101, bob: high}\n"),
            "f:3:23: `key_priority` of alice must be a number from -100 to 100, got `101`\n"
            "f:3:33: `key_priority` of bob must be a number from -100 to 100, got `high`");
  EXPECT_THAT(Mistakes(keys + "key_priority: {alice: 1, bob: 2}\n"),
              HasSubstr("`key_priority`: there is no API key of bob"));
  EXPECT_EQ(Mistakes(keys, {{"key-priority", "alice=1,bob,alice=2"}}),
            "--key-priority: `key_priority` must be a key's name and a number, as in alice=-10, "
            "got `bob`\n"
            "--key-priority: `key_priority` of alice is given twice");
}

TEST_F(ConfigTest, BadFiles) {
  EXPECT_THAT(LoadConfig("/nonexistent/x.yaml", {}),
              StatusIs(absl::StatusCode::kNotFound,
                       "/nonexistent/x.yaml: the configuration file cannot be read"));
  EXPECT_THAT(LoadConfig("/tmp", {}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/tmp")));
  EXPECT_THAT(Mistakes("- a\n"), HasSubstr("f:1:1: the configuration must be a map, got a list"));
  EXPECT_THAT(Mistakes("a: [\n"), HasSubstr("f:2:1: not valid YAML"));
  EXPECT_OK(Load("", {{"model", "m"}}));
}

}  // namespace
}  // namespace dovetail::coordinator
