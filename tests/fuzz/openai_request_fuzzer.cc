// Any bytes as the body of a chat or a completion request: parsed or refused, never an exception or
// a crash, and every refusal can be sent.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/openai_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dovetail::coordinator;
  const absl::string_view body(reinterpret_cast<const char*>(data), size);
  for (OpenAiEndpoint endpoint : {OpenAiEndpoint::kChat, OpenAiEndpoint::kCompletion}) {
    OpenAiRequest request;
    if (const auto error = ParseOpenAiRequest(endpoint, body, &request)) {
      DT_CHECK(error->status >= 400 && error->status < 500);
      DT_CHECK(!error->message.empty());
      DT_CHECK(!ErrorResponse(*error).body.empty());
      continue;
    }
    DT_CHECK(!request.generations.empty());
    DT_CHECK(request.generations.size() <= kMaxPrompts);
    for (const GenerationRequest& generation : request.generations) {
      DT_CHECK(!generation.max_tokens.has_value() || *generation.max_tokens > 0);
    }
  }
  return 0;
}
