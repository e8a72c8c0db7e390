// GrpcServer: the coordinator's gRPC port: which services it has, its limits, and how it stops.
#ifndef DOVETAIL_COORDINATOR_SERVICE_GRPC_SERVER_H_
#define DOVETAIL_COORDINATOR_SERVICE_GRPC_SERVER_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/tls_identity.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

struct GrpcServerOptions {
  std::string listen = "127.0.0.1";
  int port = 0;     // 0: any free one
  TlsIdentity tls;  // empty: no TLS on the port
  // A Unix socket that is served as well, without TLS: for this machine's workers, whom the
  // directory's permissions let in. Empty: none.
  std::string local_socket;
};

class GrpcServer {
 public:
  // Serves `services` (borrowed, outliving this), by their full names, and reflection.
  // AlreadyExists: "port 8081 on 127.0.0.1 is in use"; InvalidArgument: not an address of this
  // machine.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      const GrpcServerOptions& options, const std::map<std::string, grpc::Service*>& services);
  ~GrpcServer();  // Shutdown at once

  int port() const;
  // Takes no new calls; those that run have `grace` to end, then they are cancelled.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Routes what libgrpc logs by itself into our log at level debug. Once per process, before the
// first server.
void QuietGrpc();

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_GRPC_SERVER_H_
