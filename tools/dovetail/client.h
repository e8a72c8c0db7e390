// What the client commands (chat, status) share: a channel to a running server, deadlines,
// messages.
#ifndef DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_
#define DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace dovetail::tools {

inline constexpr char kDefaultServer[] = "127.0.0.1:8081";

inline std::shared_ptr<grpc::Channel> Dial(const std::string& server) {
  return grpc::CreateChannel(server, grpc::InsecureChannelCredentials());
}

inline void SetDeadline(grpc::ClientContext* context, std::chrono::seconds timeout) {
  context->set_deadline(std::chrono::system_clock::now() + timeout);
}

// The same code, with the server's address in front of messages about the connection.
inline absl::Status ClientStatus(const grpc::Status& status, const std::string& server) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      server + ": " + status.error_message());
}

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_CLIENT_H_
