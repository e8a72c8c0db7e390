// Tools for chat templates that know none: they are described in the system message, calls and
// their results are written into the text of the messages, in the way of Hermes. Pure functions.
#ifndef DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_
#define DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_

#include <vector>

#include "coordinator/generation_request.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {

// The messages with roles and contents alone. `tools`: null where none may be called.
std::vector<ChatMessage> PlainMessages(const std::vector<ChatMessage>& messages,
                                       const nlohmann::ordered_json& tools);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_
