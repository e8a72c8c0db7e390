// SharedSegment: named memory in the run directory that outlives the process that filled it.
//
// A worker keeps its packed weights in "<worker>.weights" and its KV cache in "<worker>.kv". The
// header carries a key (what the content was made from) and a `complete` mark, set after the last
// byte: a restarted worker that finds a complete segment with the right key uses it as it is.
//
// Owned by one process at a time: an open segment is locked, and the lock ends with the process;
// others may read what is complete.
// Bytes start page-aligned and zero. All room is taken at creation, by the calling thread: its
// memory policy (NUMA node) decides where the pages lie, and writing cannot fail for want of memory
// later.
#ifndef DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_
#define DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/posix.h"

namespace dovetail::transport {

class SharedSegment {
 public:
  // Maps `path` if it is complete and has this key and size, else makes a new one of `bytes` zero
  // bytes. kFailedPrecondition: another owner, perhaps in a process that hangs, still has it open.
  // kResourceExhausted: the file system of the run directory has less room than `bytes` (with both
  // figures).
  static absl::StatusOr<std::unique_ptr<SharedSegment>> OpenOrCreate(const std::string& path,
                                                                     uint64_t key, uint64_t bytes);
  // Maps `path` for another process than its owner's, which must be done with it: to be read.
  // kNotFound, kFailedPrecondition: it is not there, not complete, or something else.
  static absl::StatusOr<std::unique_ptr<SharedSegment>> OpenComplete(const std::string& path,
                                                                     uint64_t key, uint64_t bytes);
  // Unmaps; the file stays.
  ~SharedSegment() = default;

  uint8_t* data() const;
  uint64_t bytes() const { return bytes_; }
  bool was_complete() const { return was_complete_; }
  // To be called when all writers are done.
  void MarkComplete();

 private:
  SharedSegment() = default;
  UniqueFd lock_;  // of the file itself
  MemoryMap map_;
  uint64_t bytes_ = 0;
  bool was_complete_ = false;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_
