// BlockRun: the threads of one block as fibers, and who of them waits for what.
//
// Made once for a launch and used for each of its blocks in turn, by one thread.
#ifndef DOVETAIL_KERNELS_SIMT_BLOCK_RUN_H_
#define DOVETAIL_KERNELS_SIMT_BLOCK_RUN_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/simt.h"

namespace dovetail::simt {

class BlockRun {
 public:
  struct Kernel {
    void (*fn)(const void*);
    const void* arg;
  };

  BlockRun(const char* name, Dim grid, uint32_t threads, const Stream& stream);

  absl::Status Run(Dim block, Kernel kernel);

  // Called by the thread that runs (simt.h).
  const ThreadContext& context() const { return threads_[running_].context; }
  [[noreturn]] void Fail(const std::string& what);
  void SyncBlock();
  void WarpExchange(const char* name, WarpFn fn, uint32_t mask, const void* in, size_t in_bytes,
                    void* out, size_t out_bytes);
  void SyncWarp(uint32_t mask);
  void AddCopy(const Copy& copy);
  void CommitCopies();
  void WaitCopies(int newest);
  Moment Now() const;

 private:
  enum class State { kReady, kAtBarrier, kInWarp, kEnded };
  struct Thread {
    ThreadContext context;
    std::unique_ptr<Fiber> fiber;
    State state = State::kEnded;
    const char* waits_for = "";  // in kInWarp
    WarpFn fn = nullptr;
    uint32_t mask = 0;
    std::vector<std::vector<Copy>> copies;  // groups; the last one is not committed
  };
  struct Warp {
    WarpValues in;
    WarpValues out;
    uint32_t epoch = 0;
  };

  static void RunThread(void* thread);
  void Start(Dim block, Kernel kernel);
  void RunToEnd();
  bool RunWarp(int warp);
  bool RunReadyLanes(int warp);
  // Lets go the lanes whose whole mask has come; false: none.
  bool ReleaseWarp(int warp);
  bool MaskHasCome(int warp, const Thread& first) const;
  void Release(int warp, const Thread& first);
  bool ReleaseBlock();
  // Waits are for nothing: ends all threads.
  void Abandon();
  void Yield();
  std::string WhoWaits() const;
  void Shuffle(std::vector<int>* order);

  const char* name_;
  uint64_t seed_;
  std::mt19937_64 random_;
  std::vector<FiberStack> stacks_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> warp_order_;
  std::vector<int> lane_order_;
  Kernel kernel_ = {};
  int running_ = -1;
  uint64_t launch_block_ = 0;
  uint32_t block_epoch_ = 0;
  bool abandoned_ = false;
  absl::Status status_;
};

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_BLOCK_RUN_H_
