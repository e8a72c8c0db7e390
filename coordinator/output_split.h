// OutputSplit: hands out what a step brought back, to one sequence of the step after the other.
//
// Outputs come in the order of the frame's sequences; those without anything to report may be
// missing. What a sequence asked for and did not get is an error: the output is not that of the
// step. Borrows the output, which outlives it and the parts. Allocates nothing. Of one thread.
#ifndef DOVETAIL_COORDINATOR_OUTPUT_SPLIT_H_
#define DOVETAIL_COORDINATOR_OUTPUT_SPLIT_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/scheduler.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {

// What came back for one sequence.
struct RowsOutput {
  int32_t token = -1;
  absl::Span<const float> logits;
  absl::Span<const float> hidden;
  absl::Span<const TokenLogprob> logprobs;
};

class OutputSplit {
 public:
  OutputSplit(const transport::StepOutput& output, int vocab_size, int hidden_size)
      : output_(output), vocab_size_(vocab_size), hidden_size_(hidden_size) {}

  // The part of the next rows of the step. kInternal: not what their sequence asked for.
  absl::StatusOr<RowsOutput> Take(const ScheduledRows& rows);

 private:
  bool Answers(const ScheduledRows& rows, const transport::SequenceOutput& output) const;

  const transport::StepOutput& output_;
  const int vocab_size_;
  const int hidden_size_;
  // What was handed out.
  size_t sequences_ = 0;
  size_t logits_ = 0;
  size_t hidden_ = 0;
  size_t logprobs_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_OUTPUT_SPLIT_H_
