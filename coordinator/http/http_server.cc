#include "coordinator/http/http_server.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "coordinator/http/anthropic_api.h"
#include "coordinator/http/http_connection.h"
#include "coordinator/http/http_router.h"
#include "coordinator/http/ollama_api.h"
#include "coordinator/http/openai_api.h"
#include "coordinator/http/service_api.h"

namespace dovetail::coordinator {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr std::chrono::milliseconds kAcceptRetry(100);
constexpr std::chrono::seconds kStopGrace(1);

// The way of other threads to the server's; safe to keep after the server is gone. std::mutex,
// because ThreadSanitizer sees it whole, as in the engine.
class ServerExecutor : public HttpExecutor {
 public:
  ServerExecutor(asio::io_context* io, asio::thread_pool* work) : io_(io), work_(work) {}

  void OnIoThread(std::function<void()> task) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (io_ != nullptr) asio::post(*io_, std::move(task));
  }
  void OnWorkThread(std::function<void()> task) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (work_ != nullptr) asio::post(*work_, std::move(task));
  }
  void Detach() {
    std::lock_guard<std::mutex> lock(mutex_);
    io_ = nullptr;
    work_ = nullptr;
  }

 private:
  std::mutex mutex_;
  asio::io_context* io_;     // guarded by mutex_
  asio::thread_pool* work_;  // guarded by mutex_
};

absl::StatusOr<Tcp::endpoint> ParseEndpoint(const HttpServerOptions& options) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("port must be from 0 to 65535, got ", options.port));
  }
  ErrorCode ec;
  const std::string text = options.listen == "localhost" ? "127.0.0.1" : options.listen;
  const asio::ip::address address = asio::ip::make_address(text, ec);
  if (ec) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen must be an IP address or localhost, got `", options.listen, "`"));
  }
  return Tcp::endpoint(address, static_cast<uint16_t>(options.port));
}

absl::Status ListenError(const HttpServerOptions& options, const ErrorCode& ec) {
  if (ec == asio::error::address_in_use) {
    return absl::AlreadyExistsError(
        absl::StrCat("port ", options.port, " on ", options.listen, " is in use"));
  }
  return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen, " port ",
                                             options.port, ": ", ec.message()));
}

std::vector<std::unique_ptr<HttpDialect>> MakeDialects(CallContext* context) {
  std::vector<std::unique_ptr<HttpDialect>> dialects;
  dialects.push_back(std::make_unique<OpenAiApi>(context));
  dialects.push_back(std::make_unique<AnthropicApi>(context));
  dialects.push_back(std::make_unique<OllamaApi>(context));
  dialects.push_back(std::make_unique<ServiceApi>(context));
  return dialects;
}

// TLS 1.2 and newer; OpenSSL chooses the ciphers.
absl::Status UseIdentity(const TlsIdentity& identity, asio::ssl::context* tls) {
  ErrorCode ec;
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                       asio::ssl::context::no_tlsv1_1,
                   ec);
  if (!ec) tls->use_certificate_chain(asio::buffer(identity.certificate_chain), ec);
  if (!ec) {
    tls->use_private_key(asio::buffer(identity.private_key), asio::ssl::context::pem, ec);
  }
  if (!ec) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the TLS certificate cannot be used: ", ec.message()));
}

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpServerOptions& server_options, HttpApi http_api)
      : options(server_options),
        io(1),
        work(1),
        executor(std::make_shared<ServerExecutor>(&io, &work)),
        context{std::move(http_api), options.request_timeout, executor},
        router(MakeDialects(&context), &context.api.keys),
        acceptor(io),
        accept_timer(io),
        stop_timer(io),
        guard(asio::make_work_guard(io)) {}

  absl::Status Listen();
  void Accept();
  void OnAccepted(const ErrorCode& ec, Tcp::socket socket);
  void OnClosed(HttpConnection* connection);
  void ShutdownConnections();
  void CloseConnections();

  const HttpServerOptions options;
  asio::io_context io;
  asio::thread_pool work;
  std::shared_ptr<ServerExecutor> executor;
  CallContext context;
  HttpRouter router;
  std::optional<asio::ssl::context> tls;
  Tcp::acceptor acceptor;
  asio::steady_timer accept_timer;
  asio::steady_timer stop_timer;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> guard;
  std::map<HttpConnection*, std::shared_ptr<HttpConnection>> connections;  // I/O thread
  bool stopping = false;                                                   // I/O thread
  int port = 0;
  std::thread thread;
  std::mutex stop_mutex;
  bool stopped = false;  // guarded by stop_mutex
};

absl::Status HttpServer::Impl::Listen() {
  auto endpoint = ParseEndpoint(options);
  if (!endpoint.ok()) return endpoint.status();
  if (!options.tls.empty()) {
    tls.emplace(asio::ssl::context::tls_server);
    if (absl::Status s = UseIdentity(options.tls, &*tls); !s.ok()) return s;
  }
  ErrorCode ec;
  acceptor.open(endpoint->protocol(), ec);
  if (!ec) acceptor.set_option(Tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor.bind(*endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return ListenError(options, ec);
  port = acceptor.local_endpoint(ec).port();
  return absl::OkStatus();
}

void HttpServer::Impl::Accept() {
  acceptor.async_accept(
      [this](const ErrorCode& ec, Tcp::socket socket) { OnAccepted(ec, std::move(socket)); });
}

void HttpServer::Impl::OnAccepted(const ErrorCode& ec, Tcp::socket socket) {
  if (stopping) return;
  if (ec) {
    // Out of file descriptors, most likely: others must close first.
    LogWarn(absl::StrCat("http: cannot accept a connection: ", ec.message()));
    accept_timer.expires_after(kAcceptRetry);
    accept_timer.async_wait([this](const ErrorCode&) {
      if (!stopping) Accept();
    });
    return;
  }
  // Those that are being refused need a moment to read why; past twice the limit there is no such
  // courtesy.
  const size_t limit = static_cast<size_t>(options.max_connections);
  if (connections.size() < 2 * limit) {
    const bool full = connections.size() >= limit;
    auto connection =
        MakeHttpConnection(std::move(socket), tls ? &*tls : nullptr, &options, &router,
                           [this](HttpConnection* closed) { OnClosed(closed); });
    connections.emplace(connection.get(), connection);
    full ? connection->RefuseForLoad() : connection->Start();
  }
  Accept();
}

void HttpServer::Impl::OnClosed(HttpConnection* connection) {
  connections.erase(connection);
  if (stopping && connections.empty()) stop_timer.cancel();
}

void HttpServer::Impl::ShutdownConnections() {
  stopping = true;
  ErrorCode ignored;
  acceptor.close(ignored);
  accept_timer.cancel();
  const auto copy = connections;  // closing erases
  for (const auto& [key, connection] : copy) connection->Shutdown();
  if (connections.empty()) return;
  stop_timer.expires_after(kStopGrace);
  stop_timer.async_wait([this](const ErrorCode&) { CloseConnections(); });
}

void HttpServer::Impl::CloseConnections() {
  const auto copy = connections;
  for (const auto& [key, connection] : copy) connection->Close();
}

HttpServer::HttpServer() = default;
HttpServer::~HttpServer() { Stop(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              HttpApi api) {
  std::unique_ptr<HttpServer> server(new HttpServer());
  server->impl_ = std::make_unique<Impl>(options, std::move(api));
  Impl* impl = server->impl_.get();
  absl::Status listening = impl->Listen();
  if (!listening.ok()) return listening;
  impl->Accept();
  impl->thread = std::thread([impl] { impl->io.run(); });
  return server;
}

int HttpServer::port() const { return impl_->port; }

void HttpServer::Stop() {
  std::lock_guard<std::mutex> lock(impl_->stop_mutex);
  if (impl_->stopped) return;
  impl_->stopped = true;
  Impl* impl = impl_.get();
  asio::post(impl->io, [impl] { impl->ShutdownConnections(); });
  // A prompt that is being submitted now still reaches the I/O thread, which cancels it.
  impl->work.stop();
  impl->work.join();
  asio::post(impl->io, [impl] { impl->guard.reset(); });
  if (impl->thread.joinable()) impl->thread.join();
  impl->executor->Detach();
}

}  // namespace dovetail::coordinator
