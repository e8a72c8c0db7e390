// HttpRouter: which dialect answers a path, who may ask, and what is answered where there is no
// route.
//
// HEAD is answered where GET is, OPTIONS everywhere; anything else is 404, or 405 with Allow. With
// API keys every path but /health needs one. I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_HTTP_ROUTER_H_
#define DOVETAIL_COORDINATOR_HTTP_HTTP_ROUTER_H_

#include <memory>
#include <string>
#include <vector>

#include "coordinator/api_keys.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {

inline constexpr char kHealthPath[] = "/health";

// One API: its paths, and its form of an error.
class HttpDialect {
 public:
  virtual ~HttpDialect() = default;
  // The methods of `path`, as in "POST, OPTIONS"; "" for a path of others.
  virtual absl::string_view AllowedMethods(absl::string_view path) const = 0;
  // A request for one of its paths, with one of its methods but OPTIONS. Null when `reply` was
  // answered before returning.
  virtual std::shared_ptr<HttpCall> Handle(HttpRequest request,
                                           std::shared_ptr<HttpReply> reply) = 0;
  virtual HttpResponse Error(const ApiError& error) const { return ErrorResponse(error); }
};

class HttpRouter : public HttpHandler {
 public:
  // `keys` is borrowed. The first dialect answers for paths that nobody knows.
  HttpRouter(std::vector<std::unique_ptr<HttpDialect>> dialects, const ApiKeys* keys);

  std::optional<ApiError> Admit(absl::string_view path, absl::string_view key,
                                std::string* tenant) override;
  HttpResponse ErrorFor(absl::string_view path, const ApiError& error) const override;
  std::shared_ptr<HttpCall> Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) override;

 private:
  HttpDialect* FindDialect(absl::string_view path) const;  // null: none has it

  const std::vector<std::unique_ptr<HttpDialect>> dialects_;
  const ApiKeys* const keys_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_HTTP_ROUTER_H_
