// dovetail-worker: the process that owns one device. See --help and docs/architecture.md.

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/cluster_key.h"
#include "base/cpu_topology.h"
#include "base/log.h"
#include "base/posix.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "base/worker_name.h"
#include "kernels/bandwidth.h"
#include "kernels/kernel_table.h"
#include "model/memory_plan.h"
#include "transport/edge_listener.h"
#include "transport/tcp_socket.h"
#include "worker/cluster_client.h"
#include "worker/device/cuda_device.h"
#include "worker/device/simt_device.h"
#include "worker/executor.h"

namespace dovetail::worker {
namespace {

struct Flags {
  std::string name = "cpu:0";
  std::string model;
  std::string coordinator;
  std::string run_dir;
  std::string data_listen = "0.0.0.0:0";
  std::string data_address;
  std::string cluster_key_file;
  std::string tls_roots;
  std::string model_file;
  int threads = 0;
  std::string cpus;
  int numa = -1;
  int gpu = -1;
  std::string memory = "auto";
  std::string weights = "packed";
  std::string weight_cache;
  std::string log_level = "info";
  bool die_with_parent = false;
};

void AddFlags(CLI::App& app, Flags* flags) {
  app.add_option("--name", flags->name,
                 "Device and worker name, as rules use it; of another host than the coordinator's "
                 "with the host before it, as in host-b/cpu:0")
      ->capture_default_str();
  app.add_option("--model", flags->model,
                 "Whose worker this is, of a coordinator with several models");
  app.add_option("--coordinator", flags->coordinator, "HOST:PORT that workers dial")->required();
  app.add_option(
      "--run-dir", flags->run_dir,
      "Directory of the shared memory, the same as the coordinator's (not of a worker of "
      "another host)");
  app.add_option("--cluster-key-file", flags->cluster_key_file,
                 "File with the cluster's key, which a worker of another host shows");
  app.add_option("--data-listen", flags->data_listen,
                 "ADDRESS:PORT on which a worker of another host takes connections of the others; "
                 "port 0: any free one")
      ->capture_default_str();
  app.add_option("--data-address", flags->data_address,
                 "HOST:PORT under which they reach it (default: the address from which it dials "
                 "the coordinator, the port on which it listens)");
  app.add_option("--tls-roots", flags->tls_roots,
                 "PEM file of certificates: dial the coordinator by TLS and trust what these sign");
  app.add_option("--model-file", flags->model_file,
                 "The model's file on this host, if not at the coordinator's path");
  app.add_option("--threads", flags->threads,
                 "Compute threads; 0: one per core that this process may use")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_option("--cpus", flags->cpus, "Processors to pin the threads to, such as 0-3,8");
  app.add_option("--numa", flags->numa, "NUMA node to bind memory and threads to")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--gpu", flags->gpu, "Number of the GPU, if it is not the one in the name")
      ->check(CLI::Range(0, 9999));
  app.add_option(
         "--memory", flags->memory,
         "Where weights and KV cache lie: shared (in the run directory, found again after a "
         "restart), private (in huge pages of the process, read faster), or auto: shared "
         "if the run directory has huge pages, else private if the system has some")
      ->capture_default_str();
  app.add_option("--weights", flags->weights,
                 "packed (copied in the layout that is computed with fastest), or in_place (read "
                 "from the model's file in each step: slower, and needs no memory for them)")
      ->capture_default_str()
      ->check(CLI::IsMember({"packed", "in_place"}));
  app.add_option("--weight-cache", flags->weight_cache,
                 "Directory that keeps packed weights for the next start (default: none)");
  app.add_option("--log-level", flags->log_level, "debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--die-with-parent", flags->die_with_parent,
               "Receive SIGTERM when the process that started this one ends");
}

// Opens the GPU that a name means; null: the worker computes on the CPU.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const std::string& name, int gpu) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(DeviceOf(name), absl::MaxSplits(':', 1));
  int index = 0;
  const bool has_number = absl::SimpleAtoi(parts.second, &index) && index >= 0 && index <= 9999;
  if (has_number && parts.first == "cpu") return nullptr;
  if (has_number && parts.first == "simt") return std::make_unique<SimtDevice>(/*seed=*/1);
  if (has_number && parts.first == "cuda") {
    auto device = OpenCudaDevice(gpu >= 0 ? gpu : index);
    if (!device.ok()) return Annotate(device.status(), name);
    return device;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--name ", name, ": expected cpu:N, cuda:N or simt:N, or HOST/ and one of these"));
}

// Which processors the threads are pinned to (none: not pinned) and how many threads there are.
absl::Status ChooseThreads(const Flags& flags, ExecutorOptions* options) {
  const CpuTopology topology = ReadCpuTopology();
  const std::vector<int> usable = UsableCpus(topology, flags.numa);
  if (flags.numa >= 0) {
    if (usable.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--numa ", flags.numa, ": no processor that this process may use"));
    }
    DT_RETURN_IF_ERROR(Annotate(BindMemoryToNode(flags.numa), "--numa"));
    options->cpus = usable;
  }
  if (!flags.cpus.empty()) {
    auto cpus = ParseCpuList(flags.cpus);
    if (!cpus.ok()) return Annotate(cpus.status(), "--cpus");
    options->cpus = *std::move(cpus);
  }
  const size_t cores = options->cpus.empty() ? usable.size() : options->cpus.size();
  options->num_threads = flags.threads > 0 ? flags.threads : std::max<int>(1, cores);
  return absl::OkStatus();
}

absl::Status MeasureBandwidth(Executor* executor, DeviceFacts* facts) {
  std::promise<absl::Status> result;
  executor->Post([&](ThreadPool* pool) {
    result.set_value([&]() -> absl::Status {
      if (facts->device == nullptr) {
        facts->read_bandwidth_gb_per_s = kernels::MeasureReadBandwidth(pool, model::kMeasureBytes);
        return absl::OkStatus();
      }
      DT_ASSIGN_OR_RETURN(facts->read_bandwidth_gb_per_s, facts->device->MeasureBandwidth());
      DT_ASSIGN_OR_RETURN(facts->upload_bandwidth_gb_per_s, facts->device->MeasureUpload());
      return absl::OkStatus();
    }());
  });
  return result.get_future().get();
}

// Waits for SIGTERM or SIGINT on a thread of its own, all others having them blocked. SIGUSR1 is
// how main() ends the wait.
class SignalWatcher {
 public:
  // Before any other thread is started: they inherit the mask.
  SignalWatcher() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  void Start(ClusterClient* client) {
    thread_ = std::thread([this, client] {
      int signal = 0;
      sigwait(&signals_, &signal);
      if (signal == SIGUSR1) return;
      LogInfo(absl::StrCat(signal == SIGTERM ? "SIGTERM" : "SIGINT", ": stopping"));
      client->Stop();
    });
  }
  ~SignalWatcher() {
    if (!thread_.joinable()) return;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

 private:
  sigset_t signals_;
  std::thread thread_;
};

absl::Status LogDevice(const DeviceFacts& facts) {
  std::string text = absl::StrCat(facts.num_threads, " threads, ", facts.kernels->name);
  if (facts.device != nullptr) {
    DT_ASSIGN_OR_RETURN(const DeviceProperties properties, facts.device->Properties());
    text = absl::StrCat(properties.description, ", ", text);
  }
  LogInfo(absl::StrCat(text, ", reads ", facts.read_bandwidth_gb_per_s, " GB/s"));
  return absl::OkStatus();
}

// What a worker of another host needs and others must not have, all mistakes at once.
absl::Status CheckHostFlags(const Flags& flags) {
  const bool remote = !HostOf(flags.name).empty();
  std::vector<std::string> mistakes;
  if (remote && flags.cluster_key_file.empty()) {
    mistakes.push_back("--cluster-key-file: a worker of another host needs it");
  }
  if (remote && !flags.run_dir.empty()) {
    mistakes.push_back("--run-dir: a worker of another host has none");
  }
  if (remote && flags.memory == "shared") {
    mistakes.push_back("--memory: that of a worker of another host is private");
  }
  if (!remote && flags.run_dir.empty()) mistakes.push_back("--run-dir is required");
  if (!remote && (!flags.cluster_key_file.empty() || !flags.data_address.empty())) {
    mistakes.push_back(
        absl::StrCat("--cluster-key-file, --data-address: only a worker of another "
                     "host has them, such as --name host-b/",
                     flags.name));
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "; "));
}

constexpr uint64_t kMaxPemBytes = 1 << 20;

// How it reaches the coordinator and the others. `listener` is made where it has to listen.
absl::StatusOr<ClusterClientOptions> MakeClientOptions(
    const Flags& flags, std::unique_ptr<transport::EdgeListener>* listener) {
  DT_RETURN_IF_ERROR(CheckHostFlags(flags));
  ClusterClientOptions options;
  options.coordinator = flags.coordinator;
  options.run_dir = flags.run_dir;
  options.model_file = flags.model_file;
  if (!flags.tls_roots.empty()) {
    DT_ASSIGN_OR_RETURN(options.tls_roots, ReadFile(flags.tls_roots, kMaxPemBytes));
  }
  if (HostOf(flags.name).empty()) return options;
  DT_ASSIGN_OR_RETURN(options.cluster_key, ReadClusterKey(flags.cluster_key_file));
  const auto listen = transport::ParseTcpAddress(flags.data_listen);
  if (!listen.ok()) return Annotate(listen.status(), "--data-listen");
  if (!flags.data_address.empty()) {
    const auto address = transport::ParseTcpAddress(flags.data_address);
    if (!address.ok()) return Annotate(address.status(), "--data-address");
  }
  DT_ASSIGN_OR_RETURN(*listener, transport::EdgeListener::Start(*listen));
  options.listener = listener->get();
  options.data_address =
      flags.data_address.empty() ? absl::StrCat(":", (*listener)->port()) : flags.data_address;
  LogInfo(absl::StrCat("listening for other workers on port ", (*listener)->port()));
  return options;
}

absl::Status RunWorker(const Flags& flags) {
  SignalWatcher signals;
  std::unique_ptr<transport::EdgeListener> listener;  // outlives the executor
  DT_ASSIGN_OR_RETURN(ClusterClientOptions client_options, MakeClientOptions(flags, &listener));
  DT_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(flags.name, flags.gpu));
  const absl::StatusOr<MemoryKind> memory = ParseMemoryKind(flags.memory);
  if (!memory.ok()) return Annotate(memory.status(), "--memory");
  ExecutorOptions options;
  options.worker = flags.name;
  options.device = device.get();
  options.in_place = flags.weights == "in_place" && device == nullptr;
  options.weight_cache = flags.weight_cache;
  DT_RETURN_IF_ERROR(ChooseThreads(flags, &options));
  const char* isa = std::getenv("DOVETAIL_ISA");
  DT_ASSIGN_OR_RETURN(options.kernels, kernels::SelectTable(isa == nullptr ? "" : isa));

  DeviceFacts facts;
  facts.model = flags.model;
  facts.worker = flags.name;
  facts.num_threads = options.num_threads;
  facts.numa_node = flags.numa;
  facts.kernels = options.kernels;
  facts.device = device.get();
  facts.memory = *memory;
  facts.in_place = options.in_place;
  ClusterClient client(std::move(client_options));
  signals.Start(&client);
  ExecutorEvents events = client.events();
  absl::Status lost;  // written by the executor's thread before client.Run() returns, and it ends
  events.device_lost = [&client, &lost](const absl::Status& status) {
    lost = status;
    client.Stop();
  };
  Executor executor(options, std::move(events));
  DT_RETURN_IF_ERROR(MeasureBandwidth(&executor, &facts));
  DT_RETURN_IF_ERROR(LogDevice(facts));
  const absl::Status status = client.Run(facts, &executor);
  executor.Stop();
  if (!lost.ok()) return Annotate(lost, absl::StrCat(flags.name, " is lost"));
  return status;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"A Dovetail worker: loads its share of a model and computes its part of each step."};
  AddFlags(app, &flags);
  CLI11_PARSE(app, argc, argv);
  if (flags.die_with_parent) {
    const pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) return EXIT_FAILURE;  // it ended before we asked
  }
  absl::Status status = InitLogging(FullWorkerName(flags.model, flags.name), flags.log_level);
  if (status.ok()) status = RunWorker(flags);
  if (status.ok()) return EXIT_SUCCESS;
  std::fprintf(stderr, "dovetail-worker: %s\n", std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace dovetail::worker

int main(int argc, char** argv) { return dovetail::worker::Main(argc, argv); }
