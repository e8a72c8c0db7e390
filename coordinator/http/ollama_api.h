// OllamaApi: Ollama's routes, for the clients that speak only those.
//
//   POST /api/chat, /api/generate, /api/embed, /api/embeddings, /api/show
//   GET /api/tags, /api/ps, /api/version
// What manages models there is refused by name. I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_OLLAMA_API_H_
#define DOVETAIL_COORDINATOR_HTTP_OLLAMA_API_H_

#include <memory>

#include "coordinator/http/generation_call.h"
#include "coordinator/http/http_router.h"

namespace dovetail::coordinator {

class OllamaApi : public HttpDialect {
 public:
  explicit OllamaApi(CallContext* context) : context_(context) {}  // borrowed

  absl::string_view AllowedMethods(absl::string_view path) const override;
  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;
  HttpResponse Error(const ApiError& error) const override;

 private:
  std::shared_ptr<HttpCall> Generate(HttpRequest request, std::shared_ptr<HttpReply> reply);
  HttpResponse Show(const HttpRequest& request) const;

  CallContext* const context_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OLLAMA_API_H_
