// BatchRun: submits many token-id requests to an engine and waits for all of them.
//
// Used by eval and bench. The sinks write into slots of their own, so nothing is shared between
// requests but the count of those that are left.
#ifndef DOVETAIL_TOOLS_DOVETAIL_BATCH_RUN_H_
#define DOVETAIL_TOOLS_DOVETAIL_BATCH_RUN_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/sampling_params.h"
#include "coordinator/engine.h"

namespace dovetail::tools {

struct BatchRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 0;
  bool logits = false;
  absl::Duration at;  // not submitted earlier than this after the start of its batch
  SamplingParams sampling = {.temperature = 0};
};

struct BatchResult {
  std::vector<int32_t> tokens;
  std::vector<absl::Time> token_times;
  absl::Time submitted;
};

// Called on the engine's thread for rows [first_row, ...) of request `index`.
using LogitsFn =
    std::function<void(size_t index, int first_row, absl::Span<const float> rows, int vocab_size)>;

// Runs `requests`, whose `at` ascend, `batch` after `batch`, end of sequence ignored. The first
// failure is returned.
absl::StatusOr<std::vector<BatchResult>> RunBatch(coordinator::Engine* engine,
                                                  const std::vector<BatchRequest>& requests,
                                                  int batch, const LogitsFn& on_logits = nullptr);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_BATCH_RUN_H_
