// AnthropicApi: the routes of Anthropic's Messages API.
//
//   POST /v1/messages, /v1/messages/count_tokens
// I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_API_H_
#define DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_API_H_

#include <memory>

#include "coordinator/http/generation_call.h"
#include "coordinator/http/http_router.h"

namespace dovetail::coordinator {

class AnthropicApi : public HttpDialect {
 public:
  explicit AnthropicApi(CallContext* context) : context_(context) {}  // borrowed

  absl::string_view AllowedMethods(absl::string_view path) const override;
  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;
  HttpResponse Error(const ApiError& error) const override;

 private:
  CallContext* const context_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_API_H_
