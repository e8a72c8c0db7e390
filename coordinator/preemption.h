// Preemption: how a sequence that must give its KV blocks back gets its tokens computed later.
#ifndef DOVETAIL_COORDINATOR_PREEMPTION_H_
#define DOVETAIL_COORDINATOR_PREEMPTION_H_

namespace dovetail::coordinator {

enum class Preemption {
  kCheaper,    // as the cost model says
  kSwap,       // where the swap area has room
  kRecompute,  // always
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PREEMPTION_H_
