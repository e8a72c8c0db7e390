// StandInStream: what a library that stands in for NCCL takes for a cudaStream_t.
//
// SimtDevice hands out pointers to it; the stand-in (tests/nccl_stand_in) counts up when it has
// taken an operation, and down when that is done, from threads of its own.
#ifndef DOVETAIL_WORKER_DEVICE_STAND_IN_STREAM_H_
#define DOVETAIL_WORKER_DEVICE_STAND_IN_STREAM_H_

#include <atomic>
#include <cstdint>

namespace dovetail::worker {

struct StandInStream {
  std::atomic<uint32_t> not_done{0};  // operations; release when counting down, acquire to look
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_STAND_IN_STREAM_H_
