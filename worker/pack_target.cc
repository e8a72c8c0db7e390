#include "worker/pack_target.h"

#include <limits>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<PackTarget>> PackTarget::Create(Memory* memory, Device* device) {
  auto target = absl::WrapUnique(new PackTarget(memory, device));
  if (device == nullptr) return target;
  for (DeviceBuffer& buffer : target->staging_) {
    DT_ASSIGN_OR_RETURN(buffer, device->AllocateHost(model::kLoadStagingBytes / 2));
  }
  return target;
}

int64_t PackTarget::max_bytes() const {
  return device_ == nullptr ? std::numeric_limits<int64_t>::max() : staging_[0].bytes();
}

void PackTarget::Send() {
  if (bytes_ > 0) device_->Upload(memory_.data() + offset_, staging_[current_].data(), bytes_);
  bytes_ = 0;
}

absl::StatusOr<uint8_t*> PackTarget::Next(int64_t offset, int64_t bytes) {
  if (device_ == nullptr) return memory_.data() + offset;
  if (bytes > max_bytes()) {
    return absl::UnimplementedError(
        absl::StrCat("a weight with ", bytes, " bytes in one piece is too long for a GPU worker"));
  }
  // What was sent before the last piece is waited for: its buffer is written now.
  DT_RETURN_IF_ERROR(device_->Wait());
  Send();
  current_ = 1 - current_;
  offset_ = offset;
  bytes_ = bytes;
  return staging_[current_].data();
}

absl::Status PackTarget::Finish() {
  if (device_ == nullptr) return absl::OkStatus();
  Send();
  return device_->Wait();
}

}  // namespace dovetail::worker
