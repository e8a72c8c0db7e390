// Pipeline: the connected workers as the engine sees them: steps go in, outputs come out, in order
// per lane.
//
// ExchangePipeline sends frames through an Exchange; tests use a fake that computes something
// simple. Used by the engine's thread only, except Wake().
#ifndef DOVETAIL_COORDINATOR_PIPELINE_H_
#define DOVETAIL_COORDINATOR_PIPELINE_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/stream_choice.h"
#include "transport/exchange.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {

class Pipeline {
 public:
  virtual ~Pipeline() = default;
  virtual uint64_t epoch() const = 0;
  // The worker of every segment of the route, as numbers in order of their first segment. Workers
  // that share rows count as one: none of them can do anything else meanwhile.
  virtual absl::Span<const int> segment_workers() const = 0;
  // Whether steps would wait for each other in a circle if there were two on the way.
  virtual bool one_step_at_a_time() const { return false; }
  // What a step whose experts are streamed reads.
  virtual StreamCost stream_cost() const { return {}; }
  // Hands the frame to the first worker. An error means that the pipeline is lost.
  virtual absl::Status Send(const transport::StepFrame& frame) = 0;
  // True and fills `output` when a step has come back; false when none has. Never waits long.
  virtual absl::StatusOr<bool> Poll(transport::StepOutput* output) = 0;
  // Sleeps until an output may have come or Wake() was called, at most `timeout`. A Wake() since
  // the last Wait() returned counts: then it does not sleep at all.
  virtual void Wait(absl::Duration timeout) = 0;
  virtual void Wake() = 0;  // any thread
};

// The pipeline over `exchange`. `shape`, `hidden_size` and `vocab_size` size its buffers.
absl::StatusOr<std::unique_ptr<Pipeline>> MakeExchangePipeline(
    std::shared_ptr<transport::Exchange> exchange, const Route& route, const StepShape& shape,
    int vocab_size, int hidden_size, const StreamCost& stream_cost = {});

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PIPELINE_H_
