// Anthropic's request for a message, translated into OpenAI's request for a chat, which has one
// parser and one set of checks. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_REQUEST_H_
#define DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_REQUEST_H_

#include <string>
#include <vector>

#include "coordinator/http/json_reader.h"

namespace dovetail::coordinator {

// Builds the OpenAI request in `chat`; fields that nobody knows are added to `unknown`. Errors name
// Anthropic's fields.
MaybeError TranslateAnthropicRequest(const nlohmann::json& body, nlohmann::json* chat,
                                     std::vector<std::string>* unknown);

// An error about a field of the translation, in Anthropic's words.
ApiError InAnthropicWords(ApiError error);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_REQUEST_H_
