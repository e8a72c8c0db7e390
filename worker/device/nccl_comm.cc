#include "worker/device/nccl_comm.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

using transport::NcclResult;

constexpr int kNumRanks = 2;
constexpr absl::Duration kFinishPatience = absl::Seconds(1);

std::string Reason(const transport::NcclApi& nccl, NcclResult result,
                   transport::NcclCommHandle comm) {
  const char* const what = nccl.GetErrorString(result);
  const char* const detail = nccl.GetLastError(comm);
  std::string reason = absl::StrCat("NCCL: ", what != nullptr ? what : "unknown error");
  if (detail != nullptr && *detail != '\0') absl::StrAppend(&reason, " (", detail, ")");
  return reason;
}

}  // namespace

absl::StatusOr<NcclId> NcclComm::MakeId() {
  DT_ASSIGN_OR_RETURN(const transport::NcclApi* nccl, transport::Nccl());
  NcclId id;
  const NcclResult result = nccl->GetUniqueId(&id);
  if (result == transport::kNcclSuccess) return id;
  return absl::InternalError(Reason(*nccl, result, nullptr));
}

absl::StatusOr<std::unique_ptr<NcclComm>> NcclComm::Begin(LinkEdge edge, const NcclId& id,
                                                          Role role) {
  DT_ASSIGN_OR_RETURN(const transport::NcclApi* nccl, transport::Nccl());
  std::unique_ptr<NcclComm> comm(new NcclComm(*nccl, std::move(edge), role));
  transport::NcclConfig config;
  config.blocking = 0;
  DT_RETURN_IF_ERROR(comm->ToStatus(
      nccl->CommInitRankConfig(&comm->comm_, kNumRanks, id, static_cast<int>(role), &config)));
  return comm;
}

absl::Status NcclComm::Join(absl::Duration timeout) {
  return WaitFor(edge_, "the other end did not join", timeout, [this] { return Settled(); });
}

absl::StatusOr<bool> NcclComm::Settled() {
  NcclResult state = transport::kNcclSuccess;
  NcclResult result = nccl_.CommGetAsyncError(comm_, &state);
  if (result == transport::kNcclSuccess) result = state;
  DT_RETURN_IF_ERROR(ToStatus(result));
  return result == transport::kNcclSuccess;
}

absl::Status NcclComm::Post(uint8_t* data, int64_t bytes, DeviceStream* stream) {
  const auto count = static_cast<size_t>(bytes);
  if (role_ == Role::kSender) {
    return ToStatus(nccl_.Send(data, count, transport::kNcclUint8,
                               static_cast<int>(Role::kReceiver), comm_, stream->handle()));
  }
  return ToStatus(nccl_.Recv(data, count, transport::kNcclUint8, static_cast<int>(Role::kSender),
                             comm_, stream->handle()));
}

void NcclComm::Finish() {
  if (!ToStatus(nccl_.CommFinalize(comm_)).ok()) return;
  // The epoch may well have ended by now, which is nothing that this wait should end for.
  const LinkEdge edge{.name = edge_.name, .aborted = [] { return false; }};
  if (!WaitFor(edge, "NCCL did not end", kFinishPatience, [this] { return Settled(); }).ok())
    return;
  nccl_.CommDestroy(comm_);
  comm_ = nullptr;
}

void NcclComm::Abort() {
  if (comm_ != nullptr) nccl_.CommAbort(comm_);
  comm_ = nullptr;
}

// OK also while NCCL still works on it.
absl::Status NcclComm::ToStatus(NcclResult result) {
  if (result == transport::kNcclSuccess || result == transport::kNcclInProgress) {
    return absl::OkStatus();
  }
  const std::string reason = Reason(nccl_, result, comm_);
  // How NCCL says that the other end closed a connection, or does not answer.
  if (result == transport::kNcclRemoteError || result == transport::kNcclSystemError) {
    return absl::UnavailableError(absl::StrCat(edge_.name, ": the other end is gone: ", reason));
  }
  if (result == transport::kNcclInvalidUsage) {  // nothing that trying again would change
    return absl::UnimplementedError(
        absl::StrCat(edge_.name, ": NCCL refuses this link, for which each worker must have a GPU ",
                     "of its own: ", reason));
  }
  return absl::InternalError(absl::StrCat(edge_.name, ": ", reason));
}

absl::Status InNcclGroup(absl::FunctionRef<absl::Status()> fn) {
  DT_ASSIGN_OR_RETURN(const transport::NcclApi* nccl, transport::Nccl());
  nccl->GroupStart();
  absl::Status status = fn();
  const NcclResult result = nccl->GroupEnd();
  DT_RETURN_IF_ERROR(status);
  if (result == transport::kNcclSuccess || result == transport::kNcclInProgress) return status;
  return absl::InternalError(Reason(*nccl, result, nullptr));
}

}  // namespace dovetail::worker
