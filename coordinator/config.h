// ServeConfig: everything a person can set, from one YAML file and flags over it; validated whole.
//
// Keys of the file are the field names below; KTransformers' names are accepted as aliases where
// noted. A file describes one model by its keys, or several by a list `models` whose entries have
// the keys of a model; such keys beside the list are what its entries begin with. Flags are for one
// model and for the server. All mistakes are reported at once as "file:line:col: message" (unknown
// keys with the nearest known one), flags as "--flag: message". Const after Load().
#ifndef DOVETAIL_COORDINATOR_CONFIG_H_
#define DOVETAIL_COORDINATOR_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/step_shape.h"
#include "coordinator/preemption.h"
#include "coordinator/tls_identity.h"

namespace dovetail::coordinator {

// One model: what it is, who computes it, what of a machine it may use, and how it is served.
struct ModelSettings {
  std::string model;       // GGUF file, shard or directory          (alias gguf_path)
  std::string model_name;  // id in the API; default: ModelNameOf()
  std::vector<std::string> model_aliases;  // other names that requests may use
  std::string rules;  // rules file; empty: layers split evenly      (alias optimize_config_path)
  // What a rules file means for one device goes to another: "cuda:1=cuda:0", "cuda:*=cpu:0".
  std::vector<std::string> map;
  std::vector<std::string> override_tensor;  // llama.cpp's, in place of `rules`
  // Names of the workers the plan is for; of other hosts with the host: "host-b/cpu:0".
  std::vector<std::string> workers = {"cpu:0"};
  int threads = 0;         // per local worker; 0: cores / workers
  bool own_cores = false;  // each local worker has cores of its own: `cpu_infer` was given
  // The NUMA nodes that local CPU workers are bound to, or (`auto`) one for each where there are as
  // many of both.
  bool numa_auto = true;
  std::map<std::string, int> numa;
  std::map<std::string, int64_t>
      memory;  // budget per worker in bytes ("cpu:0=8GiB"); default: what is available

  int context_length = 0;  // tokens per sequence; 0: min(model's, 8192) (alias cache_lens)
  int kv_tokens =
      0;  // tokens of the whole KV cache; 0: context_length * 2, at least max_batch_size blocks
  int kv_swap_tokens = 0;  // tokens of the swap area, besides
  KvType kv_type = KvType::kF16;
  std::string weight_memory = "auto";  // of local workers: their flag --memory
  std::string weights = "packed";      // of local workers: their flag --weights
  std::string weight_cache;            // of local workers: their flag --weight-cache; empty: none
  int max_batch_size = 32;             // sequences of one step
  int chunk_size = 512;  // prefill tokens of one step              (alias chunk_prefill_size)
  int stream_rows = 0;   // rows from which on a step's experts are streamed to a GPU; 0: never,
                         // -1: where that is predicted to be faster
  int64_t stream_buffer = int64_t{512} << 20;  // of each of a GPU worker's two buffers for that
  std::map<std::string, int> gpus;             // by worker: which GPU "cuda:1" is, if not number 1
  GpuLinks gpu_links = GpuLinks::kHost;        // between GPU workers
  int max_new_tokens = 0;                      // cap on max_tokens; 0: until the context ends
  int max_queue = 256;                         // waiting requests before RESOURCE_EXHAUSTED
  int max_logit_rows = 0;                      // 0: max_batch_size (eval raises it)
  // By the names of API keys, the lower number first: what their requests' own priority is added
  // to, which must not be negative then. Others have 0.
  std::map<std::string, int> key_priority;
  int lanes = 0;  // steps in flight along the route; 0: as many as pay ("auto")
  absl::Duration token_target = absl::Milliseconds(100);  // between two tokens of a stream
  Preemption preemption = Preemption::kCheaper;
  absl::Duration worker_timeout = absl::Seconds(10);    // without a sign of life
  absl::Duration recovery_timeout = absl::Seconds(60);  // streams wait for a lost worker
  std::string chat_template;              // Jinja file instead of the model's own; empty: its own
  std::string tool_parser = "auto";       // how answers call tools (chat/chat_dialect.h)
  std::string reasoning_parser = "auto";  // auto, think or none

  // Of the workers those of this host.
  std::vector<std::string> LocalWorkers() const;
};

// `model_name`, or the file's stem: "/models/SmolLM2-135M.Q4_1.gguf" -> "SmolLM2-135M.Q4_1"; of a
// directory its own name.
std::string ModelNameOf(const ModelSettings& settings);

// What is itself a ModelSettings is the only model, where `models` is empty; otherwise it holds
// what its entries began with.
struct ServeConfig : ModelSettings {
  std::vector<ModelSettings> models;

  bool spawn_workers = true;  // serve: start and supervise the workers on this machine
  std::string run_dir;        // empty: RunDir::DefaultPath()

  std::string listen = "127.0.0.1";  // address of both servers; loopback unless told otherwise
  int port = 8080;                   // HTTP; 0: any free port
  int grpc_port = 0;                 // 0: port + 1 (or any free one when port is 0)

  // Who may use both servers: keys by the names of their bearers. Empty: everybody who reaches
  // them.
  std::map<std::string, std::string> api_keys;
  std::string api_keys_file;    // more of them: a YAML map of name: key
  std::string tls_certificate;  // PEM files; both servers then speak TLS only
  std::string tls_key;
  TlsIdentity tls;               // what they hold
  int max_connections = 4096;    // of HTTP clients, idle ones too
  std::string cluster_key_file;  // what workers of other hosts must have as well
  std::string cluster_key;       // what it holds

  absl::Duration request_timeout = absl::Minutes(10);
  absl::Duration drain_timeout = absl::Seconds(30);
  std::string log_level = "info";

  // At least one, in the order of the file.
  std::vector<ModelSettings> Models() const;
};

// A flag as the command line gave it: name without dashes, value as text.
struct ConfigOverride {
  std::string name;
  std::string value;
};

// Reads `path` (empty: defaults) and applies the overrides. InvalidArgument lists every mistake,
// one a line. A missing `model` is one, if it is needed.
absl::StatusOr<ServeConfig> LoadConfig(const std::string& path,
                                       const std::vector<ConfigOverride>& overrides,
                                       bool needs_model = true);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CONFIG_H_
