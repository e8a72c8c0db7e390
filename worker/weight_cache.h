// The weight cache: a worker's packed weights in a file, which its next start copies instead of
// packing them again.
//
// A directory has one file for each model and worker: weights of another share, layout or model
// replace what was there, so it never holds more than its models, once for each of their workers.
// Nothing in a file is trusted: its header, its size and an XXH3 of every chunk are compared while
// it is copied. Files appear whole (written beside, synced, renamed), and of several processes that
// write the same one a single one does, so any number of coordinators may share a directory.
#ifndef DOVETAIL_WORKER_WEIGHT_CACHE_H_
#define DOVETAIL_WORKER_WEIGHT_CACHE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::worker {

// Where the weights of `worker` ("cpu:0") of this model lie in `dir`.
std::string WeightCachePath(const std::string& dir, const model::GgufFile& file,
                            const std::string& worker);

// What a file must have been written for: these weights (WeightsKey), made from files with the
// sizes and times of change that those of the model have now, since a fingerprint is of headers.
uint64_t WeightCacheKey(uint64_t weights_key, const model::GgufFile& file);

// Fills `weights` with all threads. `progress` is called now and then with bytes done and in all;
// false stops with kCancelled. kNotFound: no file, or one of other weights. kFailedPrecondition: of
// another version. kDataLoss: damaged or cut short. All name the file; `weights` is then anything.
absl::Status ReadWeightCache(const std::string& path, uint64_t key, absl::Span<uint8_t> weights,
                             ThreadPool* pool,
                             const std::function<bool(uint64_t done, uint64_t total)>& progress);

// Replaces the file, and makes its directory. kAborted: another process is writing it. Any error
// leaves what was there.
absl::Status WriteWeightCache(const std::string& path, uint64_t key,
                              absl::Span<const uint8_t> weights, ThreadPool* pool);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_WEIGHT_CACHE_H_
