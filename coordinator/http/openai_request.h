// OpenAiRequest: the body of /v1/chat/completions or /v1/completions, checked and translated.
//
// The body is hostile: its depth is bounded before it is parsed, every type is checked before it is
// read, and no exception leaves. The ranges of sampling fields are GenerationService's to check.
// Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_REQUEST_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_REQUEST_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/generation.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/openai_fields.h"

namespace dovetail::coordinator {

inline constexpr int kMaxJsonDepth = 32;
inline constexpr size_t kMaxPrompts = 64;       // of one completion request
inline constexpr size_t kMaxGenerations = 128;  // prompts times choices

struct OpenAiRequest {
  std::string model;  // "": the one that is served
  bool stream = false;
  bool include_usage = false;
  int choices_per_prompt = 1;
  std::vector<GenerationRequest> generations;  // choice i is generation i; deadlines are not set
  std::vector<std::string> unknown_fields;
};

// Fills `request`, or returns the first mistake; fields that cannot be honoured come before all
// others.
std::optional<ApiError> ParseOpenAiRequest(OpenAiEndpoint endpoint, absl::string_view body,
                                           OpenAiRequest* request);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_REQUEST_H_
