// Memory: where a worker's weights, or its KV cache, lie: a named segment of the run directory,
// which outlives the worker, or memory of its own in huge pages, which is read faster, or a GPU's.
//
// Bytes start page-aligned and zero, and all of them are there from the beginning. Owned and used
// as a SharedSegment is.
#ifndef DOVETAIL_WORKER_MEMORY_H_
#define DOVETAIL_WORKER_MEMORY_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/posix.h"
#include "base/thread_pool.h"
#include "transport/shared_segment.h"
#include "worker/device/device.h"

namespace dovetail::worker {

enum class MemoryKind {
  kAuto,     // kShared if the run directory has huge pages or processes have none, else kPrivate
  kShared,   // named segments
  kPrivate,  // of the process
};

// "auto", "shared" or "private"; kInvalidArgument names them.
absl::StatusOr<MemoryKind> ParseMemoryKind(absl::string_view text);
// kShared or kPrivate.
MemoryKind ChooseMemoryKind(MemoryKind kind, const std::string& run_dir);

class Memory {
 public:
  // What `path` names if it is complete and has this key and size, else `bytes` zero bytes there.
  // An empty path: `previous`, if it is complete and has this key and size, else memory of this
  // process, whose pages `pool`, if given, makes; any other `previous` is freed before.
  static absl::StatusOr<std::unique_ptr<Memory>> Open(const std::string& path, uint64_t key,
                                                      uint64_t bytes,
                                                      std::unique_ptr<Memory> previous = nullptr,
                                                      ThreadPool* pool = nullptr);

  // What another worker has made at `path`, to be read.
  static absl::StatusOr<std::unique_ptr<Memory>> MapComplete(const std::string& path, uint64_t key,
                                                             uint64_t bytes);

  // The same in a GPU's memory: data() is an address there.
  static absl::StatusOr<std::unique_ptr<Memory>> OpenOnDevice(
      Device* device, uint64_t key, uint64_t bytes, std::unique_ptr<Memory> previous = nullptr);

  uint8_t* data() const;
  uint64_t bytes() const { return bytes_; }
  uint64_t key() const { return key_; }
  // Whether what was wanted was there when it was opened.
  bool was_complete() const { return was_complete_; }
  // To be called when all writers are done.
  void MarkComplete();

 private:
  Memory() = default;
  static std::unique_ptr<Memory> Make(uint64_t key, uint64_t bytes);
  bool Holds(uint64_t key, uint64_t bytes) const {
    return complete_ && key_ == key && bytes_ == bytes;
  }
  std::unique_ptr<transport::SharedSegment> segment_;
  MemoryMap map_;        // without a segment
  DeviceBuffer buffer_;  // of a GPU
  uint64_t key_ = 0;
  uint64_t bytes_ = 0;
  bool complete_ = false;
  bool was_complete_ = false;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_MEMORY_H_
