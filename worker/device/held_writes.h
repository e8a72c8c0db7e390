// HeldWrites: what a stand-in for a GPU has written to the host's memory and the host has not
// waited for.
//
// A GPU's writes arrive at any time until they are waited for. Here they arrive when they are, and
// until then what is there is rubbish: a host that reads too early computes with it, and a test
// sees it. They are made in a twin of the memory that they are for.
//
// Used by the device's thread. Nothing is allocated once there was room for as many writes.
#ifndef DOVETAIL_WORKER_DEVICE_HELD_WRITES_H_
#define DOVETAIL_WORKER_DEVICE_HELD_WRITES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "base/posix.h"

namespace dovetail::worker {

class HeldWrites {
 public:
  // Writes to this memory are held back from now on; to what was not added they are not.
  absl::Status Add(uint8_t* data, int64_t bytes);
  void Remove(uint8_t* data);

  // Where something is to be written that is for `to`: `to` itself where nothing is held back.
  uint8_t* TwinOf(void* to) const;
  // So many bytes were written there.
  void Hold(void* to, int64_t bytes);

  // A signal follows on all that was held so far.
  void Signal() { signals_.push_back(writes_.size()); }
  // What came before the last signal but `later` arrives; or everything.
  void ReleaseSignalled(size_t later);
  void ReleaseAll();

 private:
  struct Write {
    uint8_t* to;
    const uint8_t* from;
    int64_t bytes;
  };
  void Release(size_t count);

  std::map<uint8_t*, MemoryMap> twins_;  // by what they are twins of
  std::vector<Write> writes_;            // in order
  std::vector<size_t> signals_;          // how many of them each is behind
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_HELD_WRITES_H_
