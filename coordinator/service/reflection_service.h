// ReflectionService: what services there are, with the comments of their .proto files, so that
// `grpcurl describe` is the manual.
//
// Written here and not taken from libgrpc++ because that one knows no comments and only v1alpha.
// Stateless; thread-safe.
#ifndef DOVETAIL_COORDINATOR_SERVICE_REFLECTION_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_REFLECTION_SERVICE_H_

#include <memory>
#include <string>
#include <vector>

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

// grpc.reflection.v1 and v1alpha, to be registered with one server. `services`: the full names
// that list_services gives, besides these two.
std::vector<std::unique_ptr<grpc::Service>> MakeReflectionServices(
    std::vector<std::string> services);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_REFLECTION_SERVICE_H_
