// LoadWeights: from a GGUF file to the worker's weights.
//
// Only the tensors of the worker's own ops are read. They are packed by all threads of the pool,
// slice by slice, or come packed from the weight cache, or matrices stay where they are, in the
// pages of the mapped file; memory that already holds the same weights (same file, ops, layout), a
// segment or what the worker loaded before, is used as it is.
#ifndef DOVETAIL_WORKER_WEIGHT_LOADER_H_
#define DOVETAIL_WORKER_WEIGHT_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "transport/worker_plan.h"
#include "worker/device/device.h"
#include "worker/weight_store.h"

namespace dovetail::worker {

struct LoadOptions {
  std::string worker;        // whose share of the plan
  std::string weights_path;  // of the segments; empty: memory of this process
  std::string kv_path;
  const kernels::KernelTable* kernels = nullptr;
  Device* device = nullptr;  // a GPU that the weights and the KV cache go to; null: to the host
  bool in_place = false;     // matrices are not packed
  std::string cache_dir;     // of the weight cache (weight_cache.h); empty: none
  // Called after each slice with bytes of the file done and in all; false stops with kCancelled.
  std::function<bool(uint64_t done, uint64_t total)> progress;
};

// Where the weights of `worker` lie in its memory, and what that memory is.
struct WeightLayout {
  std::unique_ptr<WeightStore> store;  // without memory
  uint64_t key = 0;
  uint64_t bytes = 0;
};
// kFailedPrecondition: the file is another one than the plan was made for.
absl::StatusOr<WeightLayout> LayOutStore(const transport::WorkerPlan& plan,
                                         const model::GgufFile& file, const std::string& worker,
                                         PackedLayout layout);

// kFailedPrecondition: the file is another one than the plan was made for. `previous` is what was
// loaded before, if anything.
absl::StatusOr<std::unique_ptr<WeightStore>> LoadWeights(
    const transport::WorkerPlan& plan, const LoadOptions& options, ThreadPool* pool,
    std::unique_ptr<WeightStore> previous = nullptr);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_WEIGHT_LOADER_H_
