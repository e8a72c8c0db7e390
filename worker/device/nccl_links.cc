#include "worker/device/nccl_links.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/device/nccl_link.h"

namespace dovetail::worker {

NcclLinks::NcclLinks(Device* device) : device_(*device) {}

NcclLinks::~NcclLinks() {
  if (ends_.empty()) return;
  if (AllIdle()) {
    for (const auto& end : ends_) end->comm().Finish();
  }
  // There is nobody to tell: what cannot be aborted is left to the process's end.
  InNcclGroup([this] {
    for (const auto& end : ends_) end->comm().Abort();
    return absl::OkStatus();
  }).IgnoreError();
}

absl::StatusOr<RowSender*> NcclLinks::AddSender(LinkEdge edge, const NcclId& id, int num_slots,
                                                int64_t slot_bytes) {
  DT_ASSIGN_OR_RETURN(auto sender,
                      NcclSender::Begin(&device_, std::move(edge), id, num_slots, slot_bytes));
  RowSender* const added = sender.get();
  ends_.push_back(std::move(sender));
  return added;
}

absl::StatusOr<RowReceiver*> NcclLinks::AddReceiver(LinkEdge edge, const NcclId& id) {
  DT_ASSIGN_OR_RETURN(auto receiver, NcclReceiver::Begin(&device_, std::move(edge), id));
  RowReceiver* const added = receiver.get();
  ends_.push_back(std::move(receiver));
  return added;
}

absl::Status NcclLinks::Join(absl::Duration timeout) {
  if (ends_.empty()) return absl::OkStatus();  // NCCL need not be there
  for (const auto& end : ends_) DT_RETURN_IF_ERROR(end->comm().Join(timeout));
  return InNcclGroup([this]() -> absl::Status {
    for (const auto& end : ends_) DT_RETURN_IF_ERROR(end->Connect());
    return absl::OkStatus();
  });
}

bool NcclLinks::AllIdle() {
  for (const auto& end : ends_) {
    const absl::StatusOr<bool> idle = end->Idle();
    if (!idle.ok() || !*idle) return false;
  }
  return true;
}

}  // namespace dovetail::worker
