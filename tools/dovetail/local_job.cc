#include "tools/dovetail/local_job.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/cluster_key.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "tools/dovetail/progress.h"

namespace dovetail::tools {
namespace {

constexpr absl::Duration kReadyTimeout = absl::Minutes(30);

}  // namespace

void AddLocalJobFlags(CLI::App* app, LocalJobFlags* flags) {
  app->add_option("--model", flags->model, "GGUF file, any shard of a split one, or a directory")
      ->required();
  app->add_option("--rules", flags->rules, "placement rules; default: layers split evenly");
  app->add_option("--map", flags->map,
                  "what the rules mean for one device goes to another, as in cuda:*=cpu:0");
  app->add_option("--override-tensor", flags->override_tensor,
                  "llama.cpp's way to place tensors, such as exps=CPU; instead of rules");
  app->add_option("--workers", flags->workers, "workers to start, as in cpu:0,cpu:1")
      ->capture_default_str();
  app->add_option("--threads", flags->threads, "threads of each worker; 0: cores / workers");
  app->add_option("--chunk", flags->chunk, "prefill tokens of one step")->capture_default_str();
  app->add_option("--kv-type", flags->kv_type, "how keys and values are kept")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}))
      ->capture_default_str();
  app->add_option("--weights", flags->weights, "packed, or in_place: read from the model's file")
      ->check(CLI::IsMember({"packed", "in_place"}))
      ->capture_default_str();
  app->add_option("--weight-cache", flags->weight_cache,
                  "directory that keeps packed weights for the next start");
  app->add_option(
         "--stream-experts", flags->stream_experts,
         "tokens of a step from which on GPU workers stream the experts of CPU workers; 0: "
         "never, -1: where it is predicted to be faster")
      ->capture_default_str()
      ->check(CLI::Range(-1, 65536));
  app->add_option("--stream-buffer", flags->stream_buffer, "of each of the two buffers for that")
      ->capture_default_str();
  app->add_option("--gpus", flags->gpus,
                  "which GPU a worker is, as in cuda:1=0; default: that of its number");
  app->add_option("--gpu-links", flags->gpu_links, "between GPU workers: host, auto, ipc or nccl")
      ->capture_default_str();
  app->add_option("--lanes", flags->lanes, "steps in flight along the route; 0: as many as pay")
      ->capture_default_str();
  app->add_option("--run-dir", flags->run_dir, "directory of the shared memory (a tmpfs)");
  app->add_option("--cluster-key-file", flags->cluster_key_file,
                  "key of the cluster, which workers of other hosts must have");
  app->add_option("--listen", flags->listen, "IP address that those dial")->capture_default_str();
  app->add_option("--grpc-port", flags->grpc_port, "port that those dial; 0: any free one")
      ->check(CLI::Range(0, 65535));
}

absl::StatusOr<std::unique_ptr<coordinator::Coordinator>> StartLocalJob(
    const LocalJobFlags& flags, const LocalJobShape& shape) {
  if (flags.chunk < 1) return absl::InvalidArgumentError("--chunk must be at least 1");
  coordinator::ServeConfig config;
  config.model = flags.model;
  config.rules = flags.rules;
  config.map = absl::StrSplit(flags.map, ',', absl::SkipEmpty());
  if (!flags.override_tensor.empty()) config.override_tensor = {flags.override_tensor};
  config.workers = absl::StrSplit(flags.workers, ',', absl::SkipEmpty());
  config.threads = flags.threads;
  config.run_dir = flags.run_dir;
  config.port = 0;
  config.listen = flags.listen;
  config.grpc_port = flags.grpc_port;
  if (!flags.cluster_key_file.empty()) {
    DT_ASSIGN_OR_RETURN(config.cluster_key, ReadClusterKey(flags.cluster_key_file));
  }
  config.context_length = shape.context_length;
  const int64_t padded =
      (int64_t{shape.context_length} + kKvBlockTokens) / kKvBlockTokens * kKvBlockTokens;
  config.kv_tokens = static_cast<int>(padded * (shape.max_batch_size + 1));
  if (!FindKvType(flags.kv_type, &config.kv_type)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-type is ", flags.kv_type, ", expected one of ", kKvTypeNames));
  }
  config.weights = flags.weights;
  config.stream_rows = flags.stream_experts;
  const absl::StatusOr<int64_t> buffer = ParseBytes(flags.stream_buffer);
  if (!buffer.ok()) return Annotate(buffer.status(), "--stream-buffer");
  config.stream_buffer = *buffer / 64 * 64;
  for (absl::string_view gpu : absl::StrSplit(flags.gpus, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(gpu, absl::MaxSplits('=', 1));
    if (!absl::SimpleAtoi(parts.second, &config.gpus[parts.first])) {
      return absl::InvalidArgumentError(
          absl::StrCat("--gpus must be worker and number, as in cuda:1=0, got ", gpu));
    }
  }
  if (!FindGpuLinks(flags.gpu_links, &config.gpu_links)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--gpu-links is ", flags.gpu_links, ", expected host, auto, ipc or nccl"));
  }
  config.weight_cache = flags.weight_cache;
  config.max_batch_size = shape.max_batch_size;
  config.chunk_size = flags.chunk;
  config.max_queue = 1 << 20;
  config.max_logit_rows = shape.max_logit_rows;
  config.lanes = flags.lanes;
  config.log_level = "warn";
  DT_RETURN_IF_ERROR(InitLogging("dovetail", config.log_level));

  coordinator::CoordinatorOptions options;
  options.serve_clients = false;
  options.worker_binary = SiblingBinary("dovetail-worker");
  auto progress = std::make_shared<ProgressPrinter>();
  options.on_progress = [progress](const coordinator::StatusSnapshot& s) { progress->Show(s); };
  DT_ASSIGN_OR_RETURN(auto job, coordinator::Coordinator::Start(config, std::move(options)));
  DT_RETURN_IF_ERROR(job->WaitReady(kReadyTimeout));
  return job;
}

std::string SiblingBinary(const std::string& name) {
  char path[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof(path) - 1);
  std::string self = n > 0 ? std::string(path, static_cast<size_t>(n)) : std::string();
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? name : self.substr(0, slash + 1) + name;
}

int ReportError(const absl::Status& status) {
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    std::fprintf(stderr, "dovetail: %.*s\n", static_cast<int>(line.size()), line.data());
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return 2;
    case absl::StatusCode::kResourceExhausted:
      return 3;
    default:
      return 1;
  }
}

}  // namespace dovetail::tools
