#include "worker/device/ipc_link.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

constexpr int kMostSlots = 1024;
constexpr int64_t kMostSlotBytes = int64_t{1} << 36;

}  // namespace

absl::StatusOr<std::unique_ptr<IpcSender>> IpcSender::Create(Device* device, int num_slots,
                                                             int64_t slot_bytes, IpcOffer* offer) {
  DT_CHECK(num_slots > 0 && num_slots <= kMostSlots && slot_bytes > 0);
  auto sender = absl::WrapUnique(new IpcSender());
  sender->num_slots_ = num_slots;
  sender->slot_bytes_ = slot_bytes;
  DT_ASSIGN_OR_RETURN(sender->memory_, device->AllocateLink(num_slots * slot_bytes));
  DT_ASSIGN_OR_RETURN(offer->memory, device->ShareLink(sender->memory_));
  offer->num_slots = num_slots;
  offer->slot_bytes = slot_bytes;
  return sender;
}

absl::StatusOr<uint8_t*> IpcSender::Next(int64_t bytes, absl::Duration /*timeout*/) {
  DT_CHECK(bytes > 0 && bytes <= slot_bytes_);
  return memory_.data() + (next_ % num_slots_) * slot_bytes_;
}

absl::StatusOr<std::unique_ptr<IpcReceiver>> IpcReceiver::Create(Device* device, std::string edge,
                                                                 const IpcOffer& offer) {
  const bool sane = offer.num_slots > 0 && offer.num_slots <= kMostSlots && offer.slot_bytes > 0 &&
                    offer.slot_bytes <= kMostSlotBytes &&
                    offer.memory.bytes == offer.num_slots * offer.slot_bytes;
  if (!sane)
    return absl::InvalidArgumentError(
        absl::StrCat(edge, ": an offer of ", offer.num_slots, " slots that nobody makes"));
  auto receiver = absl::WrapUnique(new IpcReceiver(device, std::move(edge)));
  receiver->offer_ = offer;
  auto memory = device->MapLink(offer.memory);
  if (!memory.ok()) return Annotate(memory.status(), receiver->edge_);
  receiver->memory_ = *memory;
  return receiver;
}

IpcReceiver::~IpcReceiver() {
  if (memory_ != nullptr) device_.UnmapLink(offer_.memory, memory_);
}

absl::Status IpcReceiver::Receive(uint8_t* to, int64_t bytes, absl::Duration /*timeout*/) {
  if (bytes > offer_.slot_bytes) {
    return absl::InternalError(
        absl::StrCat(edge_, ": ", bytes, " bytes are said to be in a slot of ", offer_.slot_bytes));
  }
  device_.Copy(to, memory_ + (next_++ % offer_.num_slots) * offer_.slot_bytes, bytes);
  return absl::OkStatus();
}

}  // namespace dovetail::worker
