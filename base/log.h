// Logging: one line per event to stderr, with time, level and the process's component name.
//
// A thin wrapper, so that spdlog is compiled in one place. Thread-safe after InitLogging, which
// main() calls once; before it, lines are printed at level info under the name "dovetail". Not for
// hot paths.
#ifndef DOVETAIL_BASE_LOG_H_
#define DOVETAIL_BASE_LOG_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// `level`: debug, info, warn, error or off; anything else is InvalidArgument and changes nothing.
absl::Status InitLogging(absl::string_view component, absl::string_view level);

// From now on; the same levels and the same error. Any thread.
absl::Status SetLogLevel(absl::string_view level);

void LogDebug(absl::string_view message);
void LogInfo(absl::string_view message);
void LogWarn(absl::string_view message);
void LogError(absl::string_view message);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_LOG_H_
