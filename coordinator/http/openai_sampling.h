// The fields of a request that say how tokens are drawn and what is told of them: sampling,
// penalties, lengths, stops, logprobs, the number of choices. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_SAMPLING_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_SAMPLING_H_

#include "coordinator/generation_request.h"
#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_fields.h"

namespace dovetail::coordinator {

inline constexpr int kMaxChoices = 16;                  // of one prompt
inline constexpr int kDefaultCompletionMaxTokens = 16;  // OpenAI's; a chat goes on to its end

// Reads everything but the input; ranges that GenerationService checks are left to it. `n` gets the
// number of choices per prompt.
MaybeError ReadSampling(OpenAiEndpoint endpoint, const nlohmann::json& body,
                        GenerationRequest* request, int* n);

// An array of token ids.
MaybeError ReadTokenIds(const nlohmann::json& array, absl::string_view name,
                        std::vector<int32_t>* ids);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_SAMPLING_H_
