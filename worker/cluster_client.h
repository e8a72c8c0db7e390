// ClusterClient: the worker's side of ClusterService.Attach. Dials the coordinator, registers, and
// turns its commands into calls of the Executor and the Executor's events into messages.
//
// The stream is the worker's lease: when nothing has been heard for heartbeat_timeout (in
// which this process itself ran: base/patience.h), or the stream ends, the data plane is left, the
// weights are kept, and the coordinator is dialled again (100 ms to 2 s between attempts).
// Coordinator and worker may start in any order.
//
// A worker of another host than the coordinator's ("host-b/cpu:0") has no run directory: it shows
// the cluster's key, keeps its memory to itself, and its edges go by TCP (docs/hosts.md).
//
// Run() belongs to one thread; events come from the executor's thread, Stop() from any.
#ifndef DOVETAIL_WORKER_CLUSTER_CLIENT_H_
#define DOVETAIL_WORKER_CLUSTER_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "transport/edge_listener.h"
#include "worker/executor.h"
#include "worker/memory.h"

namespace dovetail::worker {

// What the worker says about itself when it registers.
struct DeviceFacts {
  std::string model;   // whose worker it is, of a coordinator with several; "": the only one's
  std::string worker;  // "cpu:0", "host-b/cpu:0"
  int num_threads = 1;
  int numa_node = -1;
  double read_bandwidth_gb_per_s = 0;
  double upload_bandwidth_gb_per_s = 0;  // of a GPU, from the host's memory; 0: not known
  const kernels::KernelTable* kernels = nullptr;
  Device* device = nullptr;  // of a GPU worker
  bool in_place = false;     // how the executor was told to keep its weights
  MemoryKind memory = MemoryKind::kAuto;
};

struct ClusterClientOptions {
  std::string coordinator;  // HOST:PORT
  std::string run_dir;      // may not exist yet; "": the worker is of another host
  std::string model_file;   // in place of the path that the plan has; "": that one
  std::string tls_roots;    // PEM: the coordinator speaks TLS, with a certificate that these trust
  // Of a worker of another host.
  std::string cluster_key;
  std::string data_address;                     // where `listener` is for others (Register)
  transport::EdgeListener* listener = nullptr;  // outlives the executor
};

class ClusterClient {
 public:
  explicit ClusterClient(ClusterClientOptions options);
  ~ClusterClient();

  // To be given to the Executor that Run() gets.
  ExecutorEvents events();
  // Serves until Stop() or the coordinator's Shutdown (OK), or until the coordinator says that this
  // worker can never join (its status).
  absl::Status Run(const DeviceFacts& facts, Executor* executor);
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CLUSTER_CLIENT_H_
