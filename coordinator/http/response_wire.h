// ResponseWire: the bytes of the response in progress, made and not yet handed to the socket.
//
// A response is whole (Content-Length) or a stream (chunked; for an HTTP/1.0 client the end of the
// connection is the end of the stream). Not thread-safe: owned by its connection.
#ifndef DOVETAIL_COORDINATOR_HTTP_RESPONSE_WIRE_H_
#define DOVETAIL_COORDINATOR_HTTP_RESPONSE_WIRE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {

class ResponseWire {
 public:
  struct Framing {
    std::string request_id;
    bool keep_alive = false;
    bool http_1_0 = false;
    bool head_only = false;  // HEAD: the Content-Length of a body that is not sent
  };

  // The next response. What the last one left unsent stays in front.
  void Begin(Framing framing);
  void AddWhole(const HttpResponse& response, absl::Time now);
  void AddHead(const HttpResponse& head, absl::Time now);
  void AddData(absl::string_view data);  // after AddHead; empty data adds nothing
  void AddEnd();
  // Drops what is unsent and counts as complete: the client will not read it.
  void Abandon();
  // The connection ends with this response, whatever its head said.
  void EndConnection() { framing_.keep_alive = false; }

  bool complete() const { return complete_; }  // the last byte was added
  bool keep_alive() const { return framing_.keep_alive; }
  int status() const { return status_; }  // 0: no head yet
  const std::string& request_id() const { return framing_.request_id; }
  size_t unsent_bytes() const { return unsent_.size(); }
  // Moves what is unsent to `out`, replacing it; the buffers swap, so that neither is allocated
  // anew.
  void TakeUnsent(std::string* out);

 private:
  void AppendHead(const HttpResponse& response, bool stream, absl::Time now);

  Framing framing_;
  bool chunked_ = false;
  bool complete_ = false;
  int status_ = 0;
  std::string unsent_;
};

absl::string_view ReasonPhrase(int status);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_RESPONSE_WIRE_H_
