// SharedSegment: named memory in the run directory that outlives the process that filled it.
//
// A worker keeps its packed weights in "<worker>.weights" and its KV cache in "<worker>.kv". The header
// carries a key (what the content was made from) and a `complete` mark, set after the last byte: a restarted
// worker that finds a complete segment with the right key uses it as it is.
//
// Created and written by one process; mapped shared. Bytes start 64-byte aligned and zero.
#ifndef DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_
#define DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace dovetail::transport {

class SharedSegment {
 public:
  // Maps `path` if it is complete and has this key and size, else makes a new one of `bytes` zero bytes.
  // kResourceExhausted: the file system of the run directory has less room than `bytes` (with both figures).
  static absl::StatusOr<std::unique_ptr<SharedSegment>> OpenOrCreate(const std::string& path,
                                                                     uint64_t key, uint64_t bytes);
  ~SharedSegment();  // unmaps; the file stays

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  bool was_complete() const { return was_complete_; }
  void MarkComplete();

 private:
  SharedSegment() = default;
  void* mapping_ = nullptr;
  uint64_t mapping_bytes_ = 0;
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool was_complete_ = false;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_SHARED_SEGMENT_H_
