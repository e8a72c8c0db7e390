// Embeddings over HTTP: OpenAI's /v1/embeddings and Ollama's /api/embed and /api/embeddings.
//
// The body is parsed on the work thread; EmbeddingService does the rest, and the answer is sent
// from the I/O thread. A client that leaves has its call cancelled.
#ifndef DOVETAIL_COORDINATOR_HTTP_EMBEDDINGS_H_
#define DOVETAIL_COORDINATOR_HTTP_EMBEDDINGS_H_

#include <memory>
#include <optional>
#include <string>

#include "coordinator/embedding.h"
#include "coordinator/http/generation_call.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_router.h"
#include "coordinator/http/json_reader.h"

namespace dovetail::coordinator {

enum class EmbeddingEndpoint { kOpenAi, kOllamaEmbed, kOllamaEmbeddings };

struct ParsedEmbedding {
  std::string model;
  bool base64 = false;  // vectors as base64 of little-endian f32, not as arrays
  std::optional<int64_t> dimensions;
  EmbeddingRequest request;
  std::vector<std::string> unknown_fields;
};

MaybeError ParseEmbeddingRequest(EmbeddingEndpoint endpoint, absl::string_view body,
                                 ParsedEmbedding* parsed);

std::string EmbeddingBody(EmbeddingEndpoint endpoint, const ParsedEmbedding& parsed,
                          const std::string& model_name, const Embeddings& embeddings,
                          absl::Duration taken);

// `context` and `dialect`, whose form errors have, are borrowed.
std::shared_ptr<HttpCall> AnswerEmbedding(CallContext* context, const HttpDialect* dialect,
                                          EmbeddingEndpoint endpoint, HttpRequest request,
                                          std::shared_ptr<HttpReply> reply);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_EMBEDDINGS_H_
