#include "worker/device/nccl_link.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

// Of the operation that connects the ends (nccl_comm.h).
constexpr int64_t kFirstBytes = 1;

absl::Status Unusable(const LinkEdge& edge) {
  return absl::FailedPreconditionError(
      absl::StrCat(edge.name, ": the link has not joined, or failed earlier"));
}

}  // namespace

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

NcclSender::~NcclSender() {
  if (!usable_) return;
  const absl::StatusOr<bool> done = AllDone();
  if (done.ok() && *done) comm_->Finish();
}

absl::Status NcclSender::Join(absl::Duration timeout) {
  DT_RETURN_IF_ERROR(comm_->Join(timeout));
  DT_RETURN_IF_ERROR(comm_->Post(slots_[0].memory.data(), kFirstBytes, slots_[0].stream.get()));
  usable_ = true;
  return absl::OkStatus();
}

absl::StatusOr<uint8_t*> NcclSender::Next(int64_t bytes, absl::Duration timeout) {
  DT_CHECK(bytes > 0 && bytes <= slots_[next_].memory.bytes());
  DT_CHECK_EQ(taken_bytes_, 0);
  if (!usable_) return Unusable(comm_->edge());
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
  if (!usable_) return Unusable(comm_->edge());
  const Slot& slot = slots_[next_];
  const absl::Status status = comm_->Post(slot.memory.data(), bytes, slot.stream.get());
  usable_ = status.ok();
  taken_bytes_ = 0;
  next_ = (next_ + 1) % slots_.size();
  return status;
}

absl::StatusOr<bool> NcclSender::AllDone() {
  DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
  if (!settled) return false;
  for (const Slot& slot : slots_) {
    DT_ASSIGN_OR_RETURN(const bool done, slot.stream->Done());
    if (!done) return false;
  }
  return true;
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

NcclReceiver::~NcclReceiver() {
  if (!usable_) return;
  const absl::StatusOr<bool> done = Arrived();
  if (done.ok() && *done) comm_->Finish();
}

absl::Status NcclReceiver::Join(absl::Duration timeout) {
  DT_RETURN_IF_ERROR(comm_->Join(timeout));
  DT_RETURN_IF_ERROR(comm_->Post(first_byte_.data(), kFirstBytes, stream_.get()));
  usable_ = true;
  return absl::OkStatus();
}

absl::Status NcclReceiver::Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) {
  DT_CHECK_GT(bytes, 0);
  if (!usable_) return Unusable(comm_->edge());
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

absl::StatusOr<bool> NcclReceiver::Arrived() {
  DT_ASSIGN_OR_RETURN(const bool settled, comm_->Settled());
  if (!settled) return false;
  return stream_->Done();
}

}  // namespace dovetail::worker
