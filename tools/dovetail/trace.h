// Trace: when requests came to a real service and how long they were, to be replayed by
// `dovetail bench --trace`.
//
// Reads the CSV files of the Azure LLM inference traces: a header line, then
// TIMESTAMP,ContextTokens,GeneratedTokens. Only lengths are known, so prompts are random tokens.
#ifndef DOVETAIL_TOOLS_DOVETAIL_TRACE_H_
#define DOVETAIL_TOOLS_DOVETAIL_TRACE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace dovetail::tools {

struct TraceRequest {
  absl::Duration at;  // after the first one
  int prompt_tokens = 0;
  int generated_tokens = 0;
};

struct TraceOptions {
  int most_requests = 0;  // 0: all
  int most_prompt_tokens = 2000;
  double speed = 1;  // times as fast as it was
};

// InvalidArgument names the line ("`name`:3: ...").
absl::StatusOr<std::vector<TraceRequest>> ParseTrace(absl::string_view csv, const std::string& name,
                                                     const TraceOptions& options);
absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path,
                                                    const TraceOptions& options);

// Of `values`, which are sorted here: the smallest that at least `share` of them do not exceed. 0
// of none.
double Percentile(std::vector<double>* values, double share);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_TRACE_H_
