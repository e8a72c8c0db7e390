// The fields of a request that say what an answer must look like: tools, tool_choice,
// response_format, and the names that other servers gave to grammars. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_TOOLS_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_TOOLS_H_

#include "coordinator/generation_request.h"
#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_fields.h"

namespace dovetail::coordinator {

inline constexpr size_t kMaxTools = 128;
inline constexpr size_t kMaxGuidedChoices = 1024;

// Chats only. What a template may look at beside messages and tools: `chat_template_kwargs` and
// `reasoning_effort`.
MaybeError ReadTemplateArguments(const nlohmann::json& body, ChatOptions* chat);
// Chats only.
MaybeError ReadTools(const nlohmann::json& body, ChatOptions* chat);

// The order of an object's members means something to templates and grammars: tools and schemas are
// taken once more from the body as it was written. After the functions above found nothing wrong.
void KeepMemberOrder(absl::string_view body, GenerationRequest* request);

// At most one of the fields may be given.
MaybeError ReadFormat(const nlohmann::json& body, std::optional<GrammarSpec>* format);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_TOOLS_H_
