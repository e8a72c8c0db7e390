// ServiceApi: the routes that are of no model API: the state of the server, and its vocabulary.
//
//   GET /health, /metrics, /tokenizer_info?model=NAME    POST /tokenize, /detokenize
// The last two take and give what gRPC's Tokenize and Detokenize do; vLLM's and llama.cpp's names
// of the fields are accepted. I/O thread only; texts are tokenised on the work thread.
#ifndef DOVETAIL_COORDINATOR_HTTP_SERVICE_API_H_
#define DOVETAIL_COORDINATOR_HTTP_SERVICE_API_H_

#include <memory>

#include "coordinator/http/generation_call.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_router.h"

namespace dovetail::coordinator {

class ServiceApi : public HttpDialect {
 public:
  explicit ServiceApi(CallContext* context) : context_(context) {}  // borrowed

  absl::string_view AllowedMethods(absl::string_view path) const override;
  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;

 private:
  HttpResponse Health() const;
  HttpResponse Metrics() const;

  CallContext* const context_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_SERVICE_API_H_
