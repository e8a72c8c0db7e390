#include "tools/dovetail/client.h"

#include <grpcpp/create_channel.h>

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail::tools {
namespace {

constexpr uint64_t kMaxCaBytes = 1 << 20;

}  // namespace

void AddClientFlags(CLI::App* command, ClientFlags* flags) {
  command->add_option("--server", flags->server, "gRPC address")->capture_default_str();
  command->add_option("--api-key", flags->api_key, "key of the server (default: DOVETAIL_API_KEY)")
      ->envname("DOVETAIL_API_KEY");
  command->add_option("--tls-ca", flags->tls_ca,
                      "speak TLS; PEM file of who signed the server's certificate");
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(const ClientFlags& flags) {
  if (flags.tls_ca.empty()) {
    return grpc::CreateChannel(flags.server, grpc::InsecureChannelCredentials());
  }
  grpc::SslCredentialsOptions options;
  DT_ASSIGN_OR_RETURN(options.pem_root_certs, ReadFile(flags.tls_ca, kMaxCaBytes));
  return grpc::CreateChannel(flags.server, grpc::SslCredentials(options));
}

void PrepareCall(const ClientFlags& flags, std::chrono::seconds timeout,
                 grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + timeout);
  if (!flags.api_key.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", flags.api_key));
  }
}

absl::Status ClientStatus(const grpc::Status& status, const ClientFlags& flags) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(flags.server, ": ", status.error_message()));
}

}  // namespace dovetail::tools
