// LocalJob: a coordinator and its worker processes, started for one measuring command (eval,
// bench).
//
// It is the same Coordinator that serves, without client-facing servers: the same plan, the same
// worker binaries, the same rings. Stopped and cleaned up by the destructor.
#ifndef DOVETAIL_TOOLS_DOVETAIL_LOCAL_JOB_H_
#define DOVETAIL_TOOLS_DOVETAIL_LOCAL_JOB_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/coordinator.h"

namespace CLI {
class App;
}

namespace dovetail::tools {

// What eval and bench let a person choose.
struct LocalJobFlags {
  std::string model;
  std::string rules;
  std::string map;              // as --map of serve
  std::string override_tensor;  // in place of rules
  std::string workers = "cpu:0";
  std::string kv_type = "f16";
  std::string weights = "packed";  // as of serve
  int stream_experts = 0;          // from so many tokens of a step on; 0: never, -1: auto
  std::string stream_buffer = "512MiB";
  std::string gpu_links = "host";
  std::string gpus;  // "cuda:1=0"
  std::string weight_cache;
  std::string run_dir;
  // For workers of other hosts, which somebody else starts.
  std::string cluster_key_file;
  std::string listen = "127.0.0.1";
  int grpc_port = 0;  // 0: any free one
  int threads = 0;    // per worker; 0: cores / workers
  int chunk = 512;    // prefill tokens of one step
  int lanes = 0;      // 0: as many as pay
};
void AddLocalJobFlags(CLI::App* app, LocalJobFlags* flags);

// What a command needs from the shape of the job.
struct LocalJobShape {
  int context_length = 0;
  int max_batch_size = 1;
  int max_logit_rows = 0;
};

// Starts the job and waits until it is ready; progress goes to stderr.
absl::StatusOr<std::unique_ptr<coordinator::Coordinator>> StartLocalJob(const LocalJobFlags& flags,
                                                                        const LocalJobShape& shape);

// The path of a binary that lies beside this one.
std::string SiblingBinary(const std::string& name);

// Prints "dovetail: message" lines to stderr and returns the exit status: 2 for bad input, 3 for
// what does not fit, 1 for the rest.
int ReportError(const absl::Status& status);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_LOCAL_JOB_H_
