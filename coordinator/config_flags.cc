#include "coordinator/config_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "coordinator/config_fields.h"

namespace dovetail::coordinator {
namespace {

struct Flag {
  const char* name;  // the key of the file
  const char* type;  // how --help shows the value
  const char* help;
};

constexpr Flag kFlags[] = {
    {"model", "FILE", "GGUF file, any shard of a split model, or a directory with one model"},
    {"model_name", "ID", "id of the model in the API (default: the file's name)"},
    {"model_aliases", "IDS", "other ids that requests may use for it, with commas"},
    {"rules", "FILE", "placement rules; without them layers are split evenly over the workers"},
    {"map", "FROM=TO,...",
     "what the rules mean for one device goes to another, such as cuda:1=cuda:0 or cuda:*=cpu:0"},
    {"override_tensor", "PATTERN=BUFFER,...",
     "llama.cpp's way to place tensors, such as exps=CPU; instead of rules"},
    {"workers", "NAMES",
     "workers that the plan is for, such as cpu:0,cpu:1 or, of another host, host-b/cpu:0 "
     "(default: "
     "cpu:0)"},
    {"spawn_workers", "BOOL", "serve: start and supervise the workers here (default: true)"},
    {"threads", "N", "threads of each local worker (default: cores / workers)"},
    {"run_dir", "DIR", "directory of the shared memory, on a tmpfs (default: in /dev/shm)"},
    {"memory", "BUDGETS",
     "memory per worker, such as cpu:0=8GiB,cpu:1=4GiB (default: what is free)"},
    {"listen", "ADDRESS", "address of both servers (default: 127.0.0.1)"},
    {"port", "N", "HTTP port; 0: any free one (default: 8080)"},
    {"grpc_port", "N", "gRPC port (default: port + 1)"},
    {"api_keys", "KEYS", "who may ask, such as alice=KEY,bob=KEY (better: a file)"},
    {"api_keys_file", "FILE", "the same as a YAML map of name: key (default: everybody may)"},
    {"tls_certificate", "FILE", "PEM chain; both servers then speak TLS only"},
    {"tls_key", "FILE", "PEM key of the certificate"},
    {"cluster_key_file", "FILE", "key of the cluster, which workers of other hosts must have"},
    {"max_connections", "N", "HTTP connections before more are refused (default: 4096)"},
    {"context_length", "TOKENS", "longest sequence (default: the model's, at most 8192)"},
    {"kv_tokens", "TOKENS", "size of the whole KV cache (default: twice the context length)"},
    {"kv_swap_tokens", "TOKENS", "swap area for preempted sequences (default: 0)"},
    {"kv_type", "TYPE", "f32, f16, bf16 or q8_0 (default: f16)"},
    {"weight_memory", "WHERE",
     "auto, shared or private: see docs/configuration.md (default: auto)"},
    {"weights", "HOW",
     "packed, or in_place: read from the model's file in each step (default: packed)"},
    {"weight_cache", "DIR", "keeps packed weights for the next start (default: none)"},
    {"max_batch_size", "N", "sequences of one step (default: 32)"},
    {"chunk_size", "TOKENS", "prefill tokens of one step (default: 512)"},
    {"stream_experts", "TOKENS",
     "tokens of a step from which on GPU workers stream the experts of CPU workers, or auto, off "
     "(default: off)"},
    {"stream_buffer", "SIZE", "of each of the two buffers for that (default: 512MiB)"},
    {"gpu_links", "HOW",
     "how rows pass between GPU workers: host, auto, ipc or nccl (default: host)"},
    {"numa", "NODES",
     "NUMA nodes of CPU workers: auto, none, or as in cpu:0=0,cpu:1=1 (default: auto)"},
    {"gpus", "GPUS", "which GPU a worker is, as in cuda:1=0 (default: the one of its number)"},
    {"max_new_tokens", "TOKENS", "cap on max_tokens; 0: until the context ends (default: 0)"},
    {"max_queue", "N", "waiting requests before more are refused (default: 256)"},
    {"key_priority", "PRIORITIES",
     "whose requests come first, such as alice=-10,bob=5: the lower number (default: 0)"},
    {"lanes", "N", "steps in flight along the route, or auto: as many as pay (default: auto)"},
    {"token_target", "DURATION",
     "between two tokens of a stream while prompts are computed (default: 100ms)"},
    {"preemption", "HOW", "auto, swap or recompute (default: auto)"},
    {"request_timeout", "DURATION", "longest generation (default: 10m)"},
    {"worker_timeout", "DURATION", "a worker this silent is lost (default: 10s)"},
    {"recovery_timeout", "DURATION", "streams wait for a lost worker to come back (default: 60s)"},
    {"drain_timeout", "DURATION", "wait for running requests before the end (default: 30s)"},
    {"chat_template", "FILE", "Jinja chat template instead of the model's own"},
    {"tool_parser", "NAME", "how answers call tools: auto, none, hermes, ... (default: auto)"},
    {"reasoning_parser", "NAME", "auto, think or none (default: auto)"},
    {"log_level", "LEVEL", "debug, info, warn, error or off (default: info)"},
};

}  // namespace

void ConfigFlags::AddTo(CLI::App* app) {
  app->add_option("--config", path_, "configuration file (YAML); flags take precedence")
      ->type_name("FILE");
  for (const Flag& flag : kFlags) {
    const std::string dashed = absl::StrReplaceAll(flag.name, {{"_", "-"}});
    std::string names = absl::StrCat("--", dashed);
    if (dashed != flag.name) absl::StrAppend(&names, ",--", flag.name);
    app->add_option_function<std::string>(
           names,
           [this, dashed](const std::string& value) {
             overrides_.push_back({dashed, value});
           },
           flag.help)
        ->type_name(flag.type)
        ->take_last();
  }
  for (const ConfigField& field : ConfigFields()) {
    if (!field.alias.empty()) AddForeignFlag(app, field.alias);
  }
  for (const char* name : {"model_path", "backend_type", "cpu_infer"}) AddForeignFlag(app, name);
}

// "cache_lens": as --cache-lens, and as KTransformers spells it.
void ConfigFlags::AddForeignFlag(CLI::App* app, absl::string_view name) {
  const std::string dashed = absl::StrReplaceAll(name, {{"_", "-"}});
  app->add_option_function<std::string>(
         absl::StrCat("--", dashed, dashed == name ? "" : absl::StrCat(",--", name)),
         [this, dashed](const std::string& value) {
           overrides_.push_back({dashed, value});
         },
         "")
      ->type_name("VALUE")
      ->take_last()
      ->group("KTransformers' names");
}

absl::StatusOr<ServeConfig> ConfigFlags::Load(bool needs_model) const {
  return LoadConfig(path_, overrides_, needs_model);
}

}  // namespace dovetail::coordinator
