// Tools for chat templates that know none: they are described in the system message. Where the
// template does not write calls either, they and their results are put into the text of the
// messages, in the way of Hermes. Pure functions.
#ifndef DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_
#define DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_

#include <vector>

#include "coordinator/generation_request.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {

// The messages with `tools` (null where none may be called) in the first one.
std::vector<ChatMessage> WithToolsAsText(const std::vector<ChatMessage>& messages,
                                         const nlohmann::ordered_json& tools,
                                         bool template_writes_calls);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_PLAIN_TOOLS_H_
