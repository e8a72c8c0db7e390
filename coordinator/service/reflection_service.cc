#include "coordinator/service/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"

// Generated beside the protocol's code.
extern const unsigned char dovetail_proto_descriptors[];
extern const size_t dovetail_proto_descriptorsSize;

namespace dovetail::coordinator {
namespace {

namespace v1 = ::grpc::reflection::v1;
namespace v1alpha = ::grpc::reflection::v1alpha;
using google::protobuf::FileDescriptorProto;

// The files of proto/ and what they import, as protoc read them. Never destroyed.
const google::protobuf::SimpleDescriptorDatabase& Files() {
  static const auto* const database = [] {
    google::protobuf::FileDescriptorSet set;
    DT_CHECK(set.ParseFromArray(dovetail_proto_descriptors,
                                static_cast<int>(dovetail_proto_descriptorsSize)));
    auto* files = new google::protobuf::SimpleDescriptorDatabase();
    for (const FileDescriptorProto& file : set.file()) DT_CHECK(files->Add(file));
    return files;
  }();
  return *database;
}

// The database's lookups are not const, though they change nothing.
google::protobuf::SimpleDescriptorDatabase& MutableFiles() {
  return const_cast<google::protobuf::SimpleDescriptorDatabase&>(Files());
}

// Answers, in either version: their messages differ by name only.
template <typename Request, typename Response>
class Answerer {
 public:
  explicit Answerer(const std::vector<std::string>& services) : services_(services) {}

  void Answer(const Request& request, Response* response) const {
    response->Clear();
    response->set_valid_host(request.host());
    *response->mutable_original_request() = request;
    FileDescriptorProto file;
    switch (request.message_request_case()) {
      case Request::kListServices:
        for (const std::string& name : services_) {
          response->mutable_list_services_response()->add_service()->set_name(name);
        }
        return;
      case Request::kFileByFilename:
        if (MutableFiles().FindFileByName(request.file_by_filename(), &file)) {
          return AddFile(file, response);
        }
        return Refuse(grpc::StatusCode::NOT_FOUND, "there is no such file", response);
      case Request::kFileContainingSymbol:
        if (MutableFiles().FindFileContainingSymbol(request.file_containing_symbol(), &file)) {
          return AddFile(file, response);
        }
        return Refuse(grpc::StatusCode::NOT_FOUND, "there is no such symbol", response);
      case Request::kFileContainingExtension:
      case Request::kAllExtensionNumbersOfType:
        return Refuse(grpc::StatusCode::NOT_FOUND, "there are no extensions", response);
      default:
        return Refuse(grpc::StatusCode::INVALID_ARGUMENT, "nothing was asked", response);
    }
  }

 private:
  static void Refuse(grpc::StatusCode code, const char* message, Response* response) {
    response->mutable_error_response()->set_error_code(code);
    response->mutable_error_response()->set_error_message(message);
  }

  static void AddFile(const FileDescriptorProto& file, Response* response) {
    std::set<std::string> added;
    AddFile(file, &added, response);
  }
  static void AddFile(const FileDescriptorProto& file, std::set<std::string>* added,
                      Response* response) {
    if (!added->insert(file.name()).second) return;
    response->mutable_file_descriptor_response()->add_file_descriptor_proto(
        file.SerializeAsString());
    for (const std::string& import : file.dependency()) {
      FileDescriptorProto imported;
      if (MutableFiles().FindFileByName(import, &imported)) AddFile(imported, added, response);
    }
  }

  const std::vector<std::string>& services_;
};

// One stream: reads, answers, reads again.
template <typename Request, typename Response>
class Stream final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit Stream(const std::vector<std::string>& services) : answerer_(services) {
    this->StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return this->Finish(grpc::Status::OK);
    answerer_.Answer(request_, &response_);
    this->StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    ok ? this->StartRead(&request_)
       : this->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the client is gone"));
  }
  void OnDone() override { delete this; }

 private:
  const Answerer<Request, Response> answerer_;
  Request request_;
  Response response_;
};

template <typename Service, typename Request, typename Response>
class Reflection final : public Service {
 public:
  explicit Reflection(std::vector<std::string> services) : services_(std::move(services)) {}

  grpc::ServerBidiReactor<Request, Response>* ServerReflectionInfo(
      grpc::CallbackServerContext*) override {
    return new Stream<Request, Response>(services_);
  }

 private:
  const std::vector<std::string> services_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeReflectionServices(
    std::vector<std::string> services) {
  services.emplace_back(v1::ServerReflection::service_full_name());
  services.emplace_back(v1alpha::ServerReflection::service_full_name());
  std::sort(services.begin(), services.end());
  std::vector<std::unique_ptr<grpc::Service>> both;
  both.push_back(
      std::make_unique<Reflection<v1::ServerReflection::CallbackService,
                                  v1::ServerReflectionRequest, v1::ServerReflectionResponse>>(
          services));
  both.push_back(
      std::make_unique<
          Reflection<v1alpha::ServerReflection::CallbackService, v1alpha::ServerReflectionRequest,
                     v1alpha::ServerReflectionResponse>>(std::move(services)));
  return both;
}

}  // namespace dovetail::coordinator
