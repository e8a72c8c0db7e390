// The `messages` of a chat request: roles, content as a string or as parts of text, calls of tools
// and their results. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_MESSAGES_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_MESSAGES_H_

#include <vector>

#include "coordinator/generation.h"
#include "coordinator/http/json_reader.h"

namespace dovetail::coordinator {

// Reads body["messages"]. The role "developer" becomes "system", which is what chat templates know;
// several text parts are joined with a newline.
MaybeError ReadMessages(const nlohmann::json& body, std::vector<ChatMessage>* messages);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_MESSAGES_H_
