#include "worker/pack_target.h"

#include <limits>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<PackTarget>> PackTarget::Create(Memory* memory, Device* device) {
  auto target = absl::WrapUnique(new PackTarget(memory, device));
  if (device == nullptr) return target;
  DT_ASSIGN_OR_RETURN(target->rows_, device->Allocate(model::kLoadDeviceBytes));
  for (DeviceBuffer& buffer : target->staging_) {
    DT_ASSIGN_OR_RETURN(buffer, device->AllocateHost(model::kLoadDeviceBytes));
  }
  return target;
}

int64_t PackTarget::max_bytes() const {
  return device_ == nullptr ? std::numeric_limits<int64_t>::max() : staging_[0].bytes();
}

void PackTarget::Send() {
  const Piece piece = piece_;
  piece_ = {};
  if (piece.bytes == 0) return;
  uint8_t* const to = memory_.data() + piece.offset;
  const uint8_t* const from = staging_[current_].data();
  if (!piece.is_rows) return device_->Upload(to, from, piece.bytes);
  device_->Upload(rows_.data(), from, piece.bytes);
  const kernels::PackArgs args = {piece.type, rows_.data(), piece.rows, piece.k, to};
  device_->kernels().pack(args, device_->stream());
}

absl::StatusOr<uint8_t*> PackTarget::Stage(const Piece& piece) {
  if (piece.bytes > max_bytes()) {
    return absl::UnimplementedError(absl::StrCat(
        "a weight with ", piece.bytes, " bytes in one piece is too long for a GPU worker"));
  }
  // What was sent before the last piece is waited for: its buffer is written now.
  DT_RETURN_IF_ERROR(device_->Wait());
  Send();
  current_ = 1 - current_;
  piece_ = piece;
  return staging_[current_].data();
}

absl::StatusOr<uint8_t*> PackTarget::Next(int64_t offset, int64_t bytes) {
  if (device_ == nullptr) return memory_.data() + offset;
  return Stage({.offset = offset, .bytes = bytes});
}

absl::StatusOr<uint8_t*> PackTarget::NextRows(WeightType type, int64_t rows, int64_t k,
                                              int64_t offset) {
  DT_CHECK(packs_rows());
  return Stage({.offset = offset,
                .bytes = rows * StoredBytes(type, k),
                .is_rows = true,
                .type = type,
                .rows = rows,
                .k = k});
}

absl::Status PackTarget::Finish() {
  if (device_ == nullptr) return absl::OkStatus();
  Send();
  return device_->Wait();
}

}  // namespace dovetail::worker
