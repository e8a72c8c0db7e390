#include "kernels/simt/fiber.h"

#include <utility>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define DOVETAIL_START_SWITCH(save, bottom, bytes) \
  __sanitizer_start_switch_fiber(save, bottom, bytes)
#define DOVETAIL_FINISH_SWITCH(save, bottom, bytes) \
  __sanitizer_finish_switch_fiber(save, bottom, bytes)
#else
#define DOVETAIL_START_SWITCH(save, bottom, bytes)
#define DOVETAIL_FINISH_SWITCH(save, bottom, bytes)
#endif

namespace dovetail::simt {
namespace {

// A stack that the fiber borrows.
struct BorrowedStack {
  using traits_type = boost::context::stack_traits;
  const FiberStack* stack;
  boost::context::stack_context allocate() {
    boost::context::stack_context context;
    context.size = stack->bytes();
    context.sp = stack->data() + stack->bytes();
    return context;
  }
  void deallocate(boost::context::stack_context&) {}
};

}  // namespace

Fiber::Fiber(const FiberStack& stack, Body body, void* arg) : stack_(stack) {
  inside_ = boost::context::fiber(
      std::allocator_arg, BorrowedStack{&stack}, [this, body, arg](boost::context::fiber&& from) {
        DOVETAIL_FINISH_SWITCH(nullptr, &outside_bottom_, &outside_bytes_);
        outside_ = std::move(from);
        body(arg);
        ended_ = true;
        DOVETAIL_START_SWITCH(nullptr, outside_bottom_, outside_bytes_);
        return std::move(outside_);
      });
}

Fiber::~Fiber() { DT_CHECK(ended_); }

void Fiber::Resume() {
  DOVETAIL_START_SWITCH(&outside_fake_, stack_.data(), stack_.bytes());
  inside_ = std::move(inside_).resume();
  DOVETAIL_FINISH_SWITCH(outside_fake_, nullptr, nullptr);
}

void Fiber::Yield() {
  [[maybe_unused]] void* fake = nullptr;
  DOVETAIL_START_SWITCH(&fake, outside_bottom_, outside_bytes_);
  outside_ = std::move(outside_).resume();
  DOVETAIL_FINISH_SWITCH(fake, &outside_bottom_, &outside_bytes_);
}

}  // namespace dovetail::simt
