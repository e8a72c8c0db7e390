// BenchTrace: replays a trace on a local job, or on a server that runs, and reports what its users
// would have seen.
#ifndef DOVETAIL_TOOLS_DOVETAIL_BENCH_TRACE_H_
#define DOVETAIL_TOOLS_DOVETAIL_BENCH_TRACE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/trace.h"

namespace dovetail::tools {

struct BenchTraceFlags {
  std::string path;
  TraceOptions options;
  std::string url;           // of a server that speaks OpenAI's completions; empty: a local job
  int slots = 32;            // sequences of one step
  double ttft_seconds = 2;   // a good answer: its first token within this,
  double itl_seconds = 0.2;  // its tokens in the mean within this after each other
  // With a server elsewhere, after the last request was due; what is not whole then is cut.
  absl::Duration patience = absl::Hours(4);
};

// Prints one JSON object: requests, tokens, seconds; goodput (good answers a second, and their
// share); time to first token and between tokens at p50, p95 and p99, in milliseconds. Of a server
// elsewhere, times are those of the events that brought text; answers that were cut are counted as
// `unfinished` and are not good, and those of them without a token (`without_first_token`) count
// with the time that they had waited, so that the percentiles are then lower bounds.
absl::Status BenchTrace(const BenchTraceFlags& flags, const LocalJobFlags& job_flags);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_BENCH_TRACE_H_
