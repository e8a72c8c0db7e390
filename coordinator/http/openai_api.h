// OpenAiApi: the routes of the HTTP server.
//
//   POST /v1/chat/completions, /v1/completions    GET /v1/models, /v1/models/{id}    GET /health
// HEAD is answered where GET is, OPTIONS everywhere; anything else is 404, or 405 with Allow. I/O
// thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_

#include <memory>

#include "absl/time/time.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_server.h"
#include "coordinator/http/openai_call.h"

namespace dovetail::coordinator {

class OpenAiApi : public HttpHandler {
 public:
  OpenAiApi(HttpApi api, absl::Duration request_timeout, std::shared_ptr<HttpExecutor> executor);

  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;

 private:
  HttpResponse HandleGet(const HttpRequest& request) const;
  HttpResponse Health() const;
  HttpResponse Model(absl::string_view id) const;

  OpenAiContext context_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_
