#include "worker/device/copy_list.h"

#include "base/check.h"

namespace dovetail::worker {

using kernels::CopyPiece;
using kernels::CopyPieces;

void CopyList::Append(const CopyPiece& piece) {
  DT_CHECK_LT(list_.num, CopyPieces::kMost);
  list_.pieces[list_.num++] = piece;
}

void CopyList::AddRows(float* to, const float* from, int64_t rows, int64_t row_floats,
                       const int32_t* more) {
  const int64_t row_bytes = row_floats * static_cast<int64_t>(sizeof(float));
  Append({to, from, rows * row_bytes, more, row_bytes});
}

void CopyList::Upload(Device* device, Way way) const {
  if (way == Way::kKernel) return device->CopySmall(list_, /*signal=*/false);
  for (int i = 0; i < list_.num; ++i) {
    const CopyPiece& piece = list_.pieces[i];
    const int64_t more = piece.count == nullptr ? 0 : *piece.count * piece.count_bytes;
    device->Upload(piece.to, piece.from, piece.bytes + more);
  }
}

void CopyList::Download(Device* device, Way way, bool signal) const {
  if (way == Way::kKernel) return device->CopySmall(list_, signal);
  CopyPieces counted = {};
  for (int i = 0; i < list_.num; ++i) {
    const CopyPiece& piece = list_.pieces[i];
    if (piece.count != nullptr) {
      counted.pieces[counted.num++] = piece;
    } else {
      device->Download(piece.to, piece.from, piece.bytes);
    }
  }
  device->CopySmall(counted, signal);
}

}  // namespace dovetail::worker
