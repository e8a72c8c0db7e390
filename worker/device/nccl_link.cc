#include "worker/device/nccl_link.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

// Of the operation that connects the ends.
constexpr int64_t kFirstBytes = 1;

}  // namespace

absl::Status NcclEnd::CheckUsable() const {
  if (usable_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(comm_->edge().name, ": the link is not up, or has failed"));
}

absl::StatusOr<std::unique_ptr<NcclSender>> NcclSender::Begin(Device* device, LinkEdge edge,
                                                              const NcclId& id, int num_slots,
                                                              int64_t slot_bytes) {
  DT_CHECK(num_slots > 0 && slot_bytes > 0);
  std::unique_ptr<NcclSender> sender(new NcclSender);
  for (int i = 0; i < num_slots; ++i) {
    Slot slot;
    DT_ASSIGN_OR_RETURN(slot.memory, device->AllocateLink(slot_bytes));
    DT_ASSIGN_OR_RETURN(slot.stream, device->MakeStream());
    sender->slots_.push_back(std::move(slot));
  }
  DT_ASSIGN_OR_RETURN(sender->comm_, NcclComm::Begin(std::move(edge), id, NcclComm::Role::kSender));
  return sender;
}

absl::Status NcclSender::Connect() {
  const Slot& slot = slots_[0];
  DT_RETURN_IF_ERROR(comm_->Post(slot.memory.data(), kFirstBytes, slot.stream.get()));
  usable_ = true;
  return absl::OkStatus();
}

absl::StatusOr<bool> NcclSender::Idle() {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
  if (!settled) return false;
  for (const Slot& slot : slots_) {
    DT_ASSIGN_OR_RETURN(const bool done, slot.stream->Done());
    if (!done) return false;
  }
  return true;
}

absl::StatusOr<uint8_t*> NcclSender::Next(int64_t bytes, absl::Duration timeout) {
  DT_CHECK(bytes > 0 && bytes <= slots_[next_].memory.bytes());
  DT_RETURN_IF_ERROR(CheckUsable());
  const Slot& slot = slots_[next_];
  DT_RETURN_IF_ERROR(WaitFor(comm_->edge(), "the receiver did not take earlier rows", timeout,
                             [&]() -> absl::StatusOr<bool> {
                               DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
                               if (!settled) return false;
                               return slot.stream->Done();
                             }));
  taken_bytes_ = bytes;
  return slot.memory.data();
}

absl::Status NcclSender::Send(int64_t bytes) {
  DT_CHECK(bytes > 0 && bytes <= taken_bytes_);
  DT_RETURN_IF_ERROR(CheckUsable());
  const Slot& slot = slots_[next_];
  const absl::Status status = comm_->Post(slot.memory.data(), bytes, slot.stream.get());
  usable_ = status.ok();
  taken_bytes_ = 0;
  next_ = (next_ + 1) % slots_.size();
  return status;
}

absl::StatusOr<std::unique_ptr<NcclReceiver>> NcclReceiver::Begin(Device* device, LinkEdge edge,
                                                                  const NcclId& id) {
  std::unique_ptr<NcclReceiver> receiver(new NcclReceiver);
  DT_ASSIGN_OR_RETURN(receiver->first_byte_, device->AllocateLink(kFirstBytes));
  DT_ASSIGN_OR_RETURN(receiver->stream_, device->MakeStream());
  DT_ASSIGN_OR_RETURN(receiver->comm_,
                      NcclComm::Begin(std::move(edge), id, NcclComm::Role::kReceiver));
  return receiver;
}

absl::Status NcclReceiver::Connect() {
  DT_RETURN_IF_ERROR(comm_->Post(first_byte_.data(), kFirstBytes, stream_.get()));
  usable_ = true;
  return absl::OkStatus();
}

absl::StatusOr<bool> NcclReceiver::Idle() {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
  if (!settled) return false;
  return stream_->Done();
}

absl::Status NcclReceiver::Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) {
  DT_CHECK_GT(bytes, 0);
  DT_RETURN_IF_ERROR(CheckUsable());
  bool posted = false;
  const absl::Status status =
      WaitFor(comm_->edge(), "no rows came", timeout, [&]() -> absl::StatusOr<bool> {
        DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
        if (!settled) return false;
        if (posted) return stream_->Done();
        posted = true;
        DT_RETURN_IF_ERROR(comm_->Post(to, bytes, stream_.get()));
        return false;
      });
  usable_ = status.ok();
  return status;
}

}  // namespace dovetail::worker
