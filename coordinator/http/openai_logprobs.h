// Logprobs as OpenAI's two APIs show them. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_LOGPROBS_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_LOGPROBS_H_

#include "absl/types/span.h"
#include "coordinator/generation_request.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {

// {"content":[{token,logprob,bytes,top_logprobs}],"refusal":null}
nlohmann::ordered_json ChatLogprobs(absl::Span<const TokenDetail> details);

// {"tokens","token_logprobs","top_logprobs","text_offset"}. Offsets are counted in characters, from
// `*text_offset` on, which is moved past the tokens.
nlohmann::ordered_json CompletionLogprobs(absl::Span<const TokenDetail> details, int* text_offset);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_LOGPROBS_H_
