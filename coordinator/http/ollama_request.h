// Ollama's requests for text, translated into OpenAI's, which have one parser and one set of
// checks. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_OLLAMA_REQUEST_H_
#define DOVETAIL_COORDINATOR_HTTP_OLLAMA_REQUEST_H_

#include <string>
#include <vector>

#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_fields.h"

namespace dovetail::coordinator {

enum class OllamaEndpoint { kChat, kGenerate };

struct OllamaTranslation {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kChat;  // /api/generate with `raw` is a completion
  bool only_loads = false;  // no prompt and no message: Ollama's way to load a model
  std::vector<std::string> unknown_fields;
};

// Builds the OpenAI request in `openai`. `context_length` bounds `num_ctx`. Errors name Ollama's
// fields.
MaybeError TranslateOllamaRequest(OllamaEndpoint endpoint, const nlohmann::json& body,
                                  int context_length, nlohmann::json* openai,
                                  OllamaTranslation* translation);

// "name:latest" is "name".
std::string WithoutLatestTag(std::string model);

// An error about a field of the translation, in Ollama's words.
ApiError InOllamaWords(ApiError error);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OLLAMA_REQUEST_H_
