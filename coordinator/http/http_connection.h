// HttpConnection: one client's socket: reads requests, writes responses, and notices when the
// client leaves.
//
// One request is answered at a time; what a client sends meanwhile waits in a bounded buffer. A
// read is pending even while answering, so that a client that goes away is noticed at once. A
// client that half-closes counts as gone: nothing tells it from one that died, and a generation for
// nobody costs everyone else. I/O thread only. Alive until closed; then `on_closed` is called,
// once. With TLS the handshake comes first and has as long as a request's headers.
#ifndef DOVETAIL_COORDINATOR_HTTP_HTTP_CONNECTION_H_
#define DOVETAIL_COORDINATOR_HTTP_HTTP_CONNECTION_H_

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>

#include "coordinator/http/http_message.h"
#include "coordinator/http/http_server.h"

namespace dovetail::coordinator {

class HttpConnection {
 public:
  virtual ~HttpConnection() = default;
  virtual void Start() = 0;
  // Answers 503 without reading a request, and closes.
  virtual void RefuseForLoad() = 0;
  // Ends what is being answered with an error, and closes when that is written.
  virtual void Shutdown() = 0;
  // Closes now.
  virtual void Close() = 0;
};

// `tls` (null: none), `options` and `handler` are borrowed.
std::shared_ptr<HttpConnection> MakeHttpConnection(boost::asio::ip::tcp::socket socket,
                                                   boost::asio::ssl::context* tls,
                                                   const HttpServerOptions* options,
                                                   HttpHandler* handler,
                                                   std::function<void(HttpConnection*)> on_closed);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_HTTP_CONNECTION_H_
