#include "coordinator/http/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/client_stream.h"
#include "coordinator/http/head_reader.h"
#include "coordinator/http/request_head.h"
#include "coordinator/http/response_wire.h"

namespace dovetail::coordinator {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using ErrorCode = boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kMaxPipelinedBytes = 64 << 10;  // held while a response is being written
constexpr absl::Duration kLingerTimeout = absl::Seconds(2);
constexpr absl::Duration kStoppingLingerTimeout = absl::Milliseconds(200);
constexpr int kClientGoneStatus = 499;  // in the log only

bool IsHttpError(const ErrorCode& ec) {
  return ec.category() == http::make_error_code(http::error::end_of_stream).category();
}

class Connection : public HttpConnection, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Tcp::socket socket, asio::ssl::context* tls, const HttpServerOptions* options,
             HttpHandler* handler, std::function<void(HttpConnection*)> on_closed)
      : options_(*options),
        handler_(handler),
        on_closed_(std::move(on_closed)),
        stream_(std::move(socket), tls),
        timer_(stream_.get_executor()),
        write_timer_(stream_.get_executor()) {}

  void Start() override;
  void RefuseForLoad() override;
  void Shutdown() override;
  void Close() override;

 private:
  enum class Phase {
    kHandshake,
    kIdle,     // between requests
    kHeaders,  // reading a request
    kBody,
    kAnswering,  // until the last byte is written
    kLinger,     // our side is shut down; what the client still sends is discarded
    kClosed,
  };
  class Reply;

  // Reading.
  void OnHandshake(const ErrorCode& ec);
  void WaitForRequest(absl::Duration timeout);
  void ReadSome();
  void OnReadSome(const ErrorCode& ec, size_t bytes);
  void ReadHeaders();
  void OnHeaders(const ErrorCode& ec);
  std::optional<ApiError> CheckHeaders();
  void ReadBody();
  void OnReadError(const ErrorCode& ec);
  void Dispatch();

  // Answering; called through Reply, and only for the request that is being answered.
  void Send(HttpResponse response);
  void StartStream(HttpResponse head);
  void Write(absl::string_view data);
  void Finish();
  void SendConnectionError(const ApiError& error);
  void ScheduleFlush();
  void Flush();
  void OnWritten(const ErrorCode& ec);
  void OnResponseWritten();
  void Linger();
  void EndSending();
  void OnClientGone();
  void LogRequest(int status) const;

  void ArmTimer(absl::Duration timeout);
  void OnTimer();
  void OnSilenceDue();

  const HttpServerOptions& options_;
  HttpHandler* const handler_;
  std::function<void(HttpConnection*)> on_closed_;
  ClientStream stream_;
  asio::steady_timer timer_;        // of the phase
  asio::steady_timer write_timer_;  // of the write that is pending

  Phase phase_ = Phase::kIdle;
  bool stopping_ = false;
  bool timed_out_ = false;
  bool read_pending_ = false;  // ReadSome's, not the parser's
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;

  // The request that is being answered.
  uint64_t request_number_ = 0;
  std::string method_ = "-";
  std::string path_ = "-";
  std::string request_id_;
  std::string tenant_;
  std::string note_;
  absl::Time received_ = absl::Now();
  bool http_1_0_ = false;
  absl::Time last_sent_;
  std::shared_ptr<HttpCall> call_;

  ResponseWire wire_;
  std::string sending_;
  bool write_pending_ = false;
  bool flush_posted_ = false;
};

// A call may keep its reply longer than the connection answers that request.
class Connection::Reply : public HttpReply {
 public:
  Reply(std::shared_ptr<Connection> connection, uint64_t request_number)
      : connection_(std::move(connection)), request_number_(request_number) {}

  void Send(HttpResponse response) override {
    if (IsCurrent()) connection_->Send(std::move(response));
  }
  void StartStream(HttpResponse head) override {
    if (IsCurrent()) connection_->StartStream(std::move(head));
  }
  void Write(absl::string_view data) override {
    if (IsCurrent()) connection_->Write(data);
  }
  void Finish() override {
    if (IsCurrent()) connection_->Finish();
  }
  void Annotate(std::string note) override {
    if (IsCurrent()) connection_->note_ = std::move(note);
  }

 private:
  bool IsCurrent() const {
    return connection_->phase_ == Phase::kAnswering && !connection_->wire_.complete() &&
           connection_->request_number_ == request_number_;
  }
  const std::shared_ptr<Connection> connection_;
  const uint64_t request_number_;
};

void Connection::Start() {
  ErrorCode ignored;
  stream_.socket().set_option(Tcp::no_delay(true), ignored);
  if (!stream_.has_tls()) return WaitForRequest(options_.header_timeout);
  phase_ = Phase::kHandshake;
  ArmTimer(options_.header_timeout);
  stream_.AsyncHandshake([self = shared_from_this()](const ErrorCode& ec) {
    if (self->phase_ != Phase::kClosed) self->OnHandshake(ec);
  });
}

void Connection::RefuseForLoad() {
  // A handshake costs more than what is refused.
  stream_.has_tls() ? Close() : SendConnectionError(TooManyConnections());
}

void Connection::Shutdown() {
  stopping_ = true;
  if (phase_ != Phase::kAnswering) return Close();
  wire_.EndConnection();
  if (auto call = call_) call->OnShutdown();
}

void Connection::Close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  if (auto call = std::move(call_)) call->OnGone();
  ErrorCode ignored;
  stream_.socket().close(ignored);
  timer_.cancel();
  write_timer_.cancel();
  auto on_closed = std::move(on_closed_);
  on_closed(this);
}

// ---- reading

void Connection::OnHandshake(const ErrorCode& ec) {
  if (!ec) return WaitForRequest(options_.header_timeout);
  LogDebug(absl::StrCat("http: TLS handshake failed: ", ec.message()));
  Close();
}

void Connection::WaitForRequest(absl::Duration timeout) {
  phase_ = Phase::kIdle;
  timed_out_ = false;
  ArmTimer(timeout);
  if (read_pending_) {
    // The read that watched for the client's end goes on; unless a request is already here, which
    // another read will parse.
    ErrorCode ignored;
    if (buffer_.size() > 0) stream_.socket().cancel(ignored);
    return;
  }
  buffer_.size() > 0 ? ReadHeaders() : ReadSome();
}

void Connection::ReadSome() {
  read_pending_ = true;
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](const ErrorCode& ec, size_t bytes) {
                            self->OnReadSome(ec, bytes);
                          });
}

void Connection::OnReadSome(const ErrorCode& ec, size_t bytes) {
  read_pending_ = false;
  buffer_.commit(bytes);
  if (phase_ == Phase::kClosed) return;
  const bool cancelled = ec == asio::error::operation_aborted;
  if (ec && !cancelled) {
    if (phase_ != Phase::kAnswering) return Close();
    if (ec != asio::error::eof || !wire_.complete()) return OnClientGone();
    wire_.EndConnection();  // a client that has said all it wants may still read the answer
    return;
  }
  switch (phase_) {
    case Phase::kIdle:
      return buffer_.size() > 0 ? ReadHeaders() : ReadSome();
    case Phase::kAnswering:
      if (buffer_.size() < kMaxPipelinedBytes) ReadSome();
      return;
    case Phase::kLinger:
      buffer_.consume(buffer_.size());
      return ReadSome();
    default:
      return;
  }
}

void Connection::ReadHeaders() {
  phase_ = Phase::kHeaders;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(options_.max_header_bytes));
  parser_->body_limit(static_cast<uint64_t>(options_.max_body_bytes));
  ArmTimer(options_.header_timeout);
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](const ErrorCode& ec, size_t) { self->OnHeaders(ec); });
}

void Connection::OnHeaders(const ErrorCode& ec) {
  if (phase_ == Phase::kClosed) return;
  received_ = absl::Now();
  // A body that is announced to be too large is refused here, by a parser that has read all
  // headers.
  const bool readable = !ec || ec == http::error::body_limit;
  const auto& message = parser_->get();
  method_ = readable ? std::string(View(message.method_string())) : "-";
  path_ = readable ? std::string(View(message.target())) : "-";
  request_id_ = ChooseRequestId(readable ? View(message["x-request-id"]) : "");
  http_1_0_ = readable && message.version() < 11;
  if (ec) return OnReadError(ec);
  if (std::optional<ApiError> error = CheckHeaders()) return SendConnectionError(*error);
  if (parser_->is_done()) return Dispatch();

  phase_ = Phase::kBody;
  ArmTimer(options_.body_timeout);
  if (message[http::field::expect].empty()) return ReadBody();
  static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(stream_, asio::buffer(kContinue, sizeof(kContinue) - 1),
                    [self = shared_from_this()](const ErrorCode& write_ec, size_t) {
                      if (self->phase_ == Phase::kClosed) return;
                      write_ec ? self->OnReadError(write_ec) : self->ReadBody();
                    });
}

std::optional<ApiError> Connection::CheckHeaders() {
  const RequestHead head = ReadHead(parser_->get());
  if (std::optional<ApiError> error = CheckRequestHead(head, options_, &path_)) return error;
  return handler_->Admit(path_, ApiKeyOf(head), &tenant_);
}

void Connection::ReadBody() {
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](const ErrorCode& ec, size_t) {
                     if (self->phase_ == Phase::kClosed) return;
                     ec ? self->OnReadError(ec) : self->Dispatch();
                   });
}

void Connection::OnReadError(const ErrorCode& ec) {
  if (ec == http::error::body_limit) return SendConnectionError(BodyTooLarge(options_));
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    return SendConnectionError(HeadersTooLarge(options_));
  }
  if (timed_out_)
    return SendConnectionError(RequestTimedOut(phase_ == Phase::kHeaders ? "headers" : "body"));
  const bool cut_off = ec == http::error::end_of_stream || ec == http::error::partial_message;
  if (cut_off || !IsHttpError(ec)) return Close();
  SendConnectionError(MalformedRequest(ec.message()));
}

void Connection::Dispatch() {
  auto message = parser_->release();
  parser_.reset();
  HttpRequest request;
  request.method = method_;
  request.path = path_;
  const absl::string_view target = View(message.target());
  if (const size_t mark = target.find('?'); mark != absl::string_view::npos) {
    request.query = std::string(target.substr(mark + 1));
  }
  request.request_id = request_id_;
  request.tenant = tenant_;
  request.body = std::move(message.body());
  request.received = received_;

  phase_ = Phase::kAnswering;
  ++request_number_;
  note_.clear();
  ResponseWire::Framing framing;
  framing.request_id = request_id_;
  framing.keep_alive = message.keep_alive() && !stopping_;
  framing.http_1_0 = http_1_0_;
  framing.head_only = message.method() == http::verb::head;
  wire_.Begin(std::move(framing));
  last_sent_ = absl::Now();
  ArmTimer(options_.keep_alive_interval);
  auto call = handler_->Handle(std::move(request),
                               std::make_shared<Reply>(shared_from_this(), request_number_));
  if (phase_ != Phase::kAnswering) return;
  if (!wire_.complete()) call_ = std::move(call);
  if (!read_pending_ && buffer_.size() < kMaxPipelinedBytes) ReadSome();
}

// ---- answering

void Connection::Send(HttpResponse response) {
  wire_.AddWhole(response, absl::Now());
  call_.reset();
  ScheduleFlush();
}

void Connection::StartStream(HttpResponse head) {
  wire_.AddHead(head, absl::Now());
  ScheduleFlush();
}

void Connection::Write(absl::string_view data) {
  wire_.AddData(data);
  const size_t unsent = wire_.unsent_bytes() + sending_.size();
  if (static_cast<int64_t>(unsent) <= options_.max_unsent_bytes) return ScheduleFlush();
  wire_.Abandon();
  note_ = "the client reads too slowly";
  // Not from here: the call is in the middle of writing.
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->OnClientGone(); });
}

void Connection::Finish() {
  wire_.AddEnd();
  call_.reset();
  ScheduleFlush();
}

void Connection::SendConnectionError(const ApiError& error) {
  phase_ = Phase::kAnswering;
  parser_.reset();
  timer_.cancel();
  note_ = error.message;
  ResponseWire::Framing framing;
  if (request_id_.empty()) request_id_ = ChooseRequestId("");
  framing.request_id = request_id_;
  framing.http_1_0 = http_1_0_;
  wire_.Begin(std::move(framing));
  Send(handler_->ErrorFor(path_, error));
}

// Posted, so that what one event writes in pieces leaves in one packet.
void Connection::ScheduleFlush() {
  if (flush_posted_ || write_pending_) return;
  flush_posted_ = true;
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->Flush();
  });
}

void Connection::Flush() {
  if (phase_ != Phase::kAnswering || write_pending_ || wire_.unsent_bytes() == 0) return;
  wire_.TakeUnsent(&sending_);
  write_pending_ = true;
  last_sent_ = absl::Now();
  write_timer_.expires_after(absl::ToChronoMilliseconds(options_.write_timeout));
  write_timer_.async_wait([self = shared_from_this()](const ErrorCode& ec) {
    const bool due = self->write_timer_.expiry() <= asio::steady_timer::clock_type::now();
    if (!ec && due && self->write_pending_) self->OnClientGone();
  });
  asio::async_write(
      stream_, asio::buffer(sending_),
      [self = shared_from_this()](const ErrorCode& ec, size_t) { self->OnWritten(ec); });
}

void Connection::OnWritten(const ErrorCode& ec) {
  write_pending_ = false;
  sending_.clear();
  if (phase_ != Phase::kAnswering) return;
  write_timer_.cancel();
  if (ec) return OnClientGone();
  if (wire_.unsent_bytes() > 0) return Flush();
  if (wire_.complete()) OnResponseWritten();
}

void Connection::OnResponseWritten() {
  LogRequest(wire_.status());
  if (!wire_.keep_alive()) return Linger();
  WaitForRequest(options_.idle_timeout);
}

// Closing at once would reset the connection where the client is still sending, and lose the
// response.
void Connection::Linger() {
  phase_ = Phase::kLinger;
  buffer_.consume(buffer_.size());
  ArmTimer(stopping_ ? kStoppingLingerTimeout : kLingerTimeout);
  if (stream_.has_tls()) {
    stream_.AsyncCloseNotify([self = shared_from_this()](const ErrorCode&) { self->EndSending(); });
  } else {
    EndSending();
  }
  if (phase_ == Phase::kLinger && !read_pending_) ReadSome();
}

void Connection::EndSending() {
  if (phase_ != Phase::kLinger) return;
  ErrorCode ec;
  stream_.socket().shutdown(Tcp::socket::shutdown_send, ec);
  if (ec || stopping_) Close();
}

void Connection::OnClientGone() {
  if (phase_ == Phase::kClosed) return;
  LogRequest(kClientGoneStatus);
  Close();
}

void Connection::LogRequest(int status) const {
  LogHttpRequest(method_, path_, status, absl::Now() - received_, note_, request_id_);
}

// ---- time

void Connection::ArmTimer(absl::Duration timeout) {
  timer_.expires_after(absl::ToChronoMilliseconds(timeout));
  timer_.async_wait([self = shared_from_this()](const ErrorCode& ec) {
    if (!ec && self->timer_.expiry() <= asio::steady_timer::clock_type::now()) self->OnTimer();
  });
}

void Connection::OnTimer() {
  ErrorCode ignored;
  switch (phase_) {
    case Phase::kHandshake:
    case Phase::kIdle:
    case Phase::kLinger:
      return Close();
    case Phase::kHeaders:
    case Phase::kBody:
      timed_out_ = true;
      stream_.socket().cancel(ignored);  // OnReadError answers
      return;
    case Phase::kAnswering:
      return OnSilenceDue();
    case Phase::kClosed:
      return;
  }
}

// The timer is not moved with each write; it looks when the last one was.
void Connection::OnSilenceDue() {
  const absl::Duration silent = absl::Now() - last_sent_;
  if (silent < options_.keep_alive_interval) {
    return ArmTimer(options_.keep_alive_interval - silent + absl::Milliseconds(1));
  }
  if (auto call = call_) call->OnSilence();
  ArmTimer(options_.keep_alive_interval);
}

}  // namespace

std::shared_ptr<HttpConnection> MakeHttpConnection(Tcp::socket socket, asio::ssl::context* tls,
                                                   const HttpServerOptions* options,
                                                   HttpHandler* handler,
                                                   std::function<void(HttpConnection*)> on_closed) {
  return std::make_shared<Connection>(std::move(socket), tls, options, handler,
                                      std::move(on_closed));
}

}  // namespace dovetail::coordinator
