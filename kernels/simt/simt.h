// SIMT on a CPU: runs a kernel written for a GPU, one block after another, each of its threads as a
// fiber, so that kernels are compared with the reference where there is no GPU.
//
// What a kernel may use is in kernels/cuda/device.h; this header is what stands behind it. Threads
// run one at a time, in an order that the seed draws, until they wait for each other. The shim
// finds what hardware hides: threads that wait at different places or have ended while others wait,
// warp operations whose lanes or masks do not match, and (shared_array.h) races in shared memory. A
// finding ends the launch with an error that says what and where; the first one counts.
//
// A launch runs on the thread that calls it; different threads may launch at the same time.
#ifndef DOVETAIL_KERNELS_SIMT_SIMT_H_
#define DOVETAIL_KERNELS_SIMT_SIMT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace dovetail::simt {

inline constexpr int kWarpLanes = 32;

struct Dim {
  uint32_t x = 1;
  uint32_t y = 1;
};

struct Stream;

// Launches that were taken down: each is started with the arguments that it had.
using Launches = std::vector<std::function<void(Stream* stream)>>;

// Launches in order, as a CUDA stream has them; a launch is done when it returns. After a finding
// nothing more is run.
struct Stream {
  uint64_t seed = 0;       // of the order of threads and blocks; 0: ascending
  bool new_seeds = false;  // the next launch gets the next one
  // 75: kernels do without what later ones have (kernels/cuda/device_sm75.inl.h).
  int capability = 80;
  absl::Status status;
  // Called before and after each launch, if given.
  void (*access)(void* arg, bool open) = nullptr;
  void* access_arg = nullptr;
  Launches* capture = nullptr;  // where launches are taken down, and not run
  int64_t launches = 0;         // that were run
};

// Calls kernel(arg) in each thread of each block.
void Launch(Stream* stream, const char* name, Dim grid, uint32_t block, void (*kernel)(const void*),
            const void* arg);

template <typename Fn>
void Launch(Stream* stream, const char* name, Dim grid, uint32_t block, const Fn& fn) {
  if (stream->capture != nullptr) {
    stream->capture->push_back([=](Stream* later) { Launch(later, name, grid, block, fn); });
    return;
  }
  Launch(
      stream, name, grid, block, [](const void* f) { (*static_cast<const Fn*>(f))(); }, &fn);
}

// --- Inside a kernel.

class BlockRun;

// What a thread knows of itself.
struct ThreadContext {
  Dim thread, block, block_dim, grid_dim;
  int capability = 0;
  BlockRun* run = nullptr;
};
const ThreadContext& ThisThread();

// Ends the launch with a finding; does not return.
[[noreturn]] void Fail(const std::string& what);

// All threads of the block wait for each other.
void SyncBlock();

// What the lanes of a warp hand to an operation, or get from it.
struct WarpValues {
  static constexpr size_t kMaxBytes = 64;
  alignas(16) std::byte lane[kWarpLanes][kMaxBytes];
};
using WarpFn = void (*)(const WarpValues& in, uint32_t mask, WarpValues* out);

// The lanes of `mask`, this one among them, wait for each other; then each has its part of what
// `fn` makes of all their values.
void WarpExchange(const char* name, WarpFn fn, uint32_t mask, const void* in, size_t in_bytes,
                  void* out, size_t out_bytes);
// The same without values; what lanes of the mask have written to shared memory is seen by the
// others.
void SyncWarp(uint32_t mask);

// Op: static Out Of(const In (&lanes)[32], uint32_t mask, int lane); In and Out are trivial. A
// function whose lane's value is not its own alone may Fail, which every lane then does.
template <typename Op>
typename Op::Out Exchange(const char* name, uint32_t mask, const typename Op::In& in) {
  using In = typename Op::In;
  using Out = typename Op::Out;
  static_assert(sizeof(In) <= WarpValues::kMaxBytes && sizeof(Out) <= WarpValues::kMaxBytes);
  const WarpFn fn = [](const WarpValues& from, uint32_t lanes, WarpValues* to) {
    In values[kWarpLanes];
    for (int i = 0; i < kWarpLanes; ++i) std::memcpy(&values[i], from.lane[i], sizeof(In));
    for (int i = 0; i < kWarpLanes; ++i) {
      if ((lanes >> i & 1) == 0) continue;
      const Out out = Op::Of(values, lanes, i);
      std::memcpy(to->lane[i], &out, sizeof(Out));
    }
  };
  Out out;
  WarpExchange(name, fn, mask, &in, sizeof(In), &out, sizeof(Out));
  return out;
}

// Copies into shared memory that go on while a thread computes, in groups. WaitCopies: all groups
// of this thread but the `newest` last ones are done.
struct Copy {
  void (*end)(void* array, int64_t index, const void* from, size_t bytes);
  void* array;
  int64_t index;
  const void* from;
  size_t bytes;
};
void AddCopy(const Copy& copy);
void CommitCopies();
void WaitCopies(int newest);

// --- For shared_array.h: when something happened, and to whom.

struct Moment {
  uint64_t launch_block = 0;  // unique for each block that a thread of the host has run
  uint32_t block_epoch = 0;   // block-wide waits so far
  uint32_t warp_epoch = 0;    // waits of this warp for its memory
  int16_t thread = -1;
  int16_t warp = -1;
};
Moment Now();

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_SIMT_H_
