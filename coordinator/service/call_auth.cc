#include "coordinator/service/call_auth.h"

#include <optional>
#include <utility>

namespace dovetail::coordinator {

absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context,
                                     const ApiKeys* keys) {
  if (keys == nullptr || !keys->required()) return "";
  const auto& metadata = context.client_metadata();
  const auto range = metadata.equal_range("authorization");
  if (range.first == range.second) {
    return absl::UnauthenticatedError(
        "an API key is needed: send it as the metadata `authorization: Bearer KEY`");
  }
  const grpc::string_ref value = range.first->second;
  std::optional<std::string> name =
      keys->Find(BearerToken(absl::string_view(value.data(), value.size())));
  if (!name.has_value() || std::next(range.first) != range.second) {
    return absl::UnauthenticatedError("the API key is not known here");
  }
  return *std::move(name);
}

}  // namespace dovetail::coordinator
