// NewRequest: a request that passed the engine's checks, on its way to the engine's thread.
//
// Made on the caller's thread, so that neither the checks nor the copy of the prompt delay a step.
// It is then moved into the engine's inbox and belongs to the engine's thread.
#ifndef DOVETAIL_COORDINATOR_NEW_REQUEST_H_
#define DOVETAIL_COORDINATOR_NEW_REQUEST_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/scheduler.h"

namespace dovetail::coordinator {

struct NewRequest {
  std::unique_ptr<Sequence> sequence;  // has no id yet
  std::shared_ptr<TokenSink> sink;
  std::vector<int32_t> end_tokens;
  std::shared_ptr<TokenConstraint> constraint;
  absl::Time deadline;
};

// Any thread: of the scheduler it asks only what depends on its options. kInvalidArgument names
// what is wrong with the request; else as Scheduler::CheckFits().
absl::StatusOr<NewRequest> MakeRequest(const EngineOptions& options, const Scheduler& scheduler,
                                       EngineRequest request, std::shared_ptr<TokenSink> sink);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_NEW_REQUEST_H_
