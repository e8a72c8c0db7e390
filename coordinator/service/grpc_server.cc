#include "coordinator/service/grpc_server.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/log.h"
#include "base/posix.h"
#include "coordinator/service/reflection_service.h"

namespace dovetail::coordinator {
namespace {

constexpr int kMaxMessageBytes = 16 << 20;
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kShortestClientPingMs = 5'000;

std::string Authority(const std::string& listen, int port) {
  const bool bare_ipv6 = listen.find(':') != std::string::npos && listen[0] != '[';
  return bare_ipv6 ? absl::StrCat("[", listen, "]:", port) : absl::StrCat(listen, ":", port);
}

// libgrpc says only that it could not listen; binding the address ourselves says why.
absl::Status WhyNotListening(const std::string& listen, int port) {
  const std::string host = absl::StrCat(listen);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on `", listen, "`: ", ::gai_strerror(error)));
  }
  int bind_error = 0;
  for (const addrinfo* a = found; a != nullptr && bind_error == 0; a = a->ai_next) {
    const UniqueFd fd(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!fd.valid() || ::bind(fd.get(), a->ai_addr, a->ai_addrlen) != 0 ||
        ::listen(fd.get(), 1) != 0) {
      bind_error = errno;
    }
  }
  ::freeaddrinfo(found);
  if (bind_error == EADDRINUSE) {
    return absl::AlreadyExistsError(absl::StrCat("port ", port, " on ", listen, " is in use"));
  }
  if (bind_error == EADDRNOTAVAIL) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", listen, "` is not an address of this machine"));
  }
  return absl::UnavailableError(absl::StrCat("cannot listen on port ", port, " of ", listen, ": ",
                                             bind_error != 0 ? ::strerror(bind_error) : "unknown"));
}

std::shared_ptr<grpc::ServerCredentials> Credentials(const TlsIdentity& tls) {
  if (tls.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({tls.private_key, tls.certificate_chain});
  return grpc::SslServerCredentials(options);
}

void LogFromGrpc(gpr_log_func_args* args) { LogDebug(absl::StrCat("grpc: ", args->message)); }

}  // namespace

struct GrpcServer::Impl {
  std::vector<std::unique_ptr<grpc::Service>> reflection;  // outlives the server
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

void QuietGrpc() {
  static std::once_flag once;
  std::call_once(once, [] { gpr_set_log_function(&LogFromGrpc); });
}

GrpcServer::GrpcServer() : impl_(std::make_unique<Impl>()) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    const GrpcServerOptions& options, const std::map<std::string, grpc::Service*>& services) {
  QuietGrpc();
  auto server = std::unique_ptr<GrpcServer>(new GrpcServer());
  grpc::ServerBuilder builder;
  // Without this two coordinators share a port and each gets half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kShortestClientPingMs);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddListeningPort(Authority(options.listen, options.port), Credentials(options.tls),
                           &server->impl_->port);
  if (!options.local_socket.empty()) {
    builder.AddListeningPort(absl::StrCat("unix:", options.local_socket),
                             grpc::InsecureServerCredentials());
  }
  std::vector<std::string> names;
  for (const auto& [name, service] : services) {
    builder.RegisterService(service);
    names.push_back(name);
  }
  server->impl_->reflection = MakeReflectionServices(std::move(names));
  for (const auto& service : server->impl_->reflection) builder.RegisterService(service.get());
  server->impl_->server = builder.BuildAndStart();
  if (server->impl_->server == nullptr || server->impl_->port == 0) {
    return WhyNotListening(options.listen, options.port);
  }
  return server;
}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

int GrpcServer::port() const { return impl_->port; }

void GrpcServer::Shutdown(absl::Duration grace) {
  if (impl_->server == nullptr) return;
  impl_->server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  impl_->server->Wait();
  impl_->server = nullptr;
}

}  // namespace dovetail::coordinator
