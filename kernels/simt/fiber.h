// Fiber: a function with a stack of its own that can stop in the middle and go on later.
//
// One thread makes, resumes and destroys it. Boost.Context switches stacks; AddressSanitizer is
// told.
#ifndef DOVETAIL_KERNELS_SIMT_FIBER_H_
#define DOVETAIL_KERNELS_SIMT_FIBER_H_

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <memory>

namespace dovetail::simt {

class FiberStack {
 public:
  explicit FiberStack(size_t bytes) : bytes_(bytes), data_(new std::byte[bytes]) {}
  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  std::unique_ptr<std::byte[]> data_;
};

class Fiber {
 public:
  using Body = void (*)(void*);
  // `stack` is the fiber's own until it has ended.
  Fiber(const FiberStack& stack, Body body, void* arg);
  // A fiber must have ended before it goes.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs it until it yields or ends.
  void Resume();
  // Called inside it: returns at the next Resume.
  void Yield();
  bool ended() const { return ended_; }

 private:
  boost::context::fiber inside_;   // where Resume goes on
  boost::context::fiber outside_;  // where Yield goes back to
  bool ended_ = false;
  // For AddressSanitizer, which wants to know the two stacks.
  [[maybe_unused]] const FiberStack& stack_;
  [[maybe_unused]] void* outside_fake_ = nullptr;
  [[maybe_unused]] const void* outside_bottom_ = nullptr;
  [[maybe_unused]] size_t outside_bytes_ = 0;
};

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_FIBER_H_
