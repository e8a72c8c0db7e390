// What the client commands (chat, status, top) share: a channel to a running server, the key for
// it, deadlines, messages.
#ifndef DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_
#define DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace CLI {
class App;
}

namespace dovetail::tools {

inline constexpr char kDefaultServer[] = "127.0.0.1:8081";

struct ClientFlags {
  std::string server = kDefaultServer;
  std::string api_key;  // default: the environment's DOVETAIL_API_KEY
  std::string tls_ca;   // PEM file of who signed the server's certificate; empty: no TLS
};

void AddClientFlags(CLI::App* command, ClientFlags* flags);

// NotFound: the file of `tls_ca` cannot be read.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(const ClientFlags& flags);

// The deadline and the key of one call.
void PrepareCall(const ClientFlags& flags, std::chrono::seconds timeout,
                 grpc::ClientContext* context);

// The same code, with the server's address in front of messages about the connection.
absl::Status ClientStatus(const grpc::Status& status, const ClientFlags& flags);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_
