// Executor: the thread that owns a worker's memory, kernels and thread pool. It loads plans and
// runs steps.
//
// States: empty -> (Load) loaded -> (Connect) connected -> (Disconnect, or the end of the epoch)
// loaded. Commands are queued and executed in order on the executor's thread, between steps;
// results come back through ExecutorEvents, which are called on that thread. While connected it
// sleeps on the exchange's doorbell, otherwise on a condition variable: idle costs no CPU.
//
// A step passes: receive a frame, check it, run the own segments up to a hop, send it on; after the
// route's last segment draw tokens and send the output. Where workers share a segment's rows, the
// first of them passes the frame on to the others before it computes, and they have no more to do
// with it afterwards. Frames of other epochs are refused by the
// transport. An error of the data plane ends the connection, never the process.
//
// Public functions may be called from any thread.
#ifndef DOVETAIL_WORKER_EXECUTOR_H_
#define DOVETAIL_WORKER_EXECUTOR_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "transport/exchange.h"
#include "transport/step_frame.h"
#include "transport/worker_plan.h"

namespace dovetail::worker {

class DataPlane;
class Device;
class ModelRunner;
class RowReceiver;
class StepSender;

struct ExecutorOptions {
  std::string worker;  // "cpu:0"
  int num_threads = 1;
  std::vector<int> cpus;  // to pin to; empty: not pinned
  const kernels::KernelTable* kernels = nullptr;
  Device* device = nullptr;  // that computes, if it is not the host; outlives the executor
  bool in_place = false;  // matrices are read from the file in each step (PackedLayout::kInPlace)
  std::string weight_cache;  // directory of packed weights (worker/weight_cache.h); empty: none
};

struct LoadResult {
  uint64_t plan_id = 0;
  uint64_t weight_bytes = 0;
  double seconds = 0;
  bool reattached = false;
  bool from_cache = false;
};

struct ExecutorEvents {
  std::function<void(uint64_t plan_id, uint64_t done, uint64_t total)> load_progress;
  std::function<void(const LoadResult& result)> loaded;
  std::function<void(uint64_t epoch)> connected;
  // `epoch`: of the exchange that it happened in; 0: in none.
  std::function<void(const absl::Status& status, uint64_t epoch)> failed;
  // After failed(): the GPU computes nothing any more for this process, which should end.
  std::function<void(const absl::Status& status)> device_lost;
};

struct SegmentStats {
  uint32_t segment = 0;
  uint64_t steps = 0;
  uint64_t busy_microseconds = 0;
};

struct ExecutorStats {
  uint64_t steps = 0;
  uint64_t busy_microseconds = 0;
  std::vector<SegmentStats> segments;  // of the loaded plan, those of this worker
  uint64_t peers_ring_bytes = 0;       // touched of rings that are in the plans of their other ends
};

class Executor {
 public:
  Executor(ExecutorOptions options, ExecutorEvents events);
  ~Executor();  // Stop()
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Loads the plan's share; what was loaded before is dropped first. Ends in loaded() or failed().
  // Empty paths: the weights and the KV cache lie in memory of this process.
  // `peer_weights`: the path of another worker's weights in the run directory.
  using PeerWeightsPath = std::function<std::string(const std::string& worker)>;
  void Load(transport::WorkerPlan plan, std::string weights_path, std::string kv_path,
            PeerWeightsPath peer_weights = nullptr);
  // Opens an exchange and serves it. Ends in connected() or failed(): with kUnimplemented where the
  // next try would end in the same way.
  using OpenExchange = std::function<absl::StatusOr<std::shared_ptr<transport::Exchange>>()>;
  void Connect(OpenExchange open);
  // Leaves the exchange of `epoch`, or any if 0, which is over: a wait in it ends. No event.
  void Disconnect(uint64_t epoch);
  // Runs `fn` on the executor's thread, between steps.
  void Post(std::function<void(ThreadPool* pool)> fn);
  // Finishes the step that is being computed, gives up a load, and ends the thread. A step that
  // waits for a peer in vain is ended with its epoch.
  void Stop();

  ExecutorStats stats() const;

 private:
  void Loop();
  bool RunPosted();
  bool HasPosted() const { return has_posted_.load(); }
  void WaitForPosted();
  bool ServeOne();
  absl::Status RunStep(transport::TensorReceiver& receiver);
  // Computes segment frame_.header.segment, with the others that share its rows. `in`: the link
  // beside the ring that the frame has just come by, if it has one. `partials`: of the frame, which
  // may still be coming, also afterwards.
  absl::Status RunSegment(RowReceiver* in, transport::ComingPartials* partials);
  // To the worker after `segment`, while the device may still be at its partials.
  absl::Status SendOn(uint32_t segment, transport::TensorSender& sender);
  absl::Status AwaitPartials(uint32_t segment);
  void DoLoad(const transport::WorkerPlan& plan, const std::string& weights_path,
              const std::string& kv_path);
  void DoConnect(const OpenExchange& open);
  absl::Status EnterExchange(std::shared_ptr<transport::Exchange> exchange);
  // All workers have loaded: maps the weights that this one streams.
  absl::Status MapPeers();
  void LeaveExchange();
  void ReportIfDeviceIsLost();
  void AddBusy(uint32_t segment, absl::Duration busy);

  const ExecutorOptions options_;
  const ExecutorEvents events_;

  mutable std::mutex mutex_;
  std::condition_variable posted_cv_;
  std::condition_variable ended_cv_;
  bool ended_ = false;                               // guarded by mutex_: the loop is over
  std::deque<std::function<void()>> posted_;         // guarded by mutex_
  std::atomic<bool> has_posted_{false};              // posted_ is not empty
  std::shared_ptr<transport::Exchange> ring_owner_;  // guarded by mutex_; keeps ringer_ valid
  std::unique_ptr<transport::Doorbell> ringer_;      // guarded by mutex_; wakes the loop
  std::atomic<bool> stop_{false};

  std::atomic<uint64_t> steps_{0};
  std::atomic<uint64_t> busy_microseconds_{0};
  struct SegmentCounter {
    bool own = false;
    std::atomic<uint64_t> steps{0};
    std::atomic<uint64_t> busy{0};  // microseconds
  };
  mutable std::mutex segments_mutex_;
  // Of the whole route. Made anew, by the executor's thread, under the mutex, and read by others
  // under it; counted in without.
  std::vector<SegmentCounter> segments_;

  // The executor's thread only.
  std::unique_ptr<ThreadPool> pool_;
  transport::WorkerPlan plan_;
  PeerWeightsPath peer_weights_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<StepSender> step_sender_;
  std::unique_ptr<DataPlane> plane_;
  transport::StepFrame frame_;

  std::thread thread_;  // last: everything it uses exists before it starts
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_EXECUTOR_H_
