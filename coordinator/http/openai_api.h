// OpenAiApi: OpenAI's routes.
//
//   POST /v1/chat/completions, /v1/completions, /v1/embeddings
//   GET /v1/models, /v1/models/{id}
// I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_

#include <memory>

#include "coordinator/http/generation_call.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_router.h"

namespace dovetail::coordinator {

class OpenAiApi : public HttpDialect {
 public:
  explicit OpenAiApi(CallContext* context) : context_(context) {}  // borrowed

  absl::string_view AllowedMethods(absl::string_view path) const override;
  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;

 private:
  HttpResponse Model(absl::string_view id) const;

  CallContext* const context_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_API_H_
