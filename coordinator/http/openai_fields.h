// The fields of OpenAI's requests that Dovetail does not act on, each with what becomes of it.
//
// A known field is honoured (openai_request.cc reads it), ignored by design because it asks for
// nothing that could change the answer, or refused by name unless its value asks for what happens
// anyway (n = 1). Anything else is unknown: accepted, and logged once. Constant tables;
// thread-safe.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_FIELDS_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_FIELDS_H_

#include <mutex>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "coordinator/http/api_error.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::coordinator {

enum class OpenAiEndpoint { kChat, kCompletion };

enum class FieldFate { kHonoured, kIgnored, kRefused, kUnknown };

FieldFate FateOf(OpenAiEndpoint endpoint, absl::string_view field);

// The error for the field with FieldFate::kRefused, unless `value` asks for nothing. Null never
// asks.
std::optional<ApiError> RefuseUnlessHarmless(OpenAiEndpoint endpoint, absl::string_view field,
                                             const nlohmann::json& value);

// Remembers which unknown fields were logged. Holds at most kMaxNames, so that clients cannot fill
// the memory or the log with invented names.
class UnknownFieldLog {
 public:
  static constexpr int kMaxNames = 64;
  // True the first time that a name is given, while there is room.
  bool ShouldLog(absl::string_view field);

 private:
  std::mutex mutex_;
  absl::flat_hash_set<std::string> names_;  // guarded by mutex_
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_FIELDS_H_
