// CopyList: the arrays that a visit of a segment copies to a GPU before its kernels, or from it
// behind them, so that one operation copies all of them.
//
// Addresses on the host are those of pinned memory that stays where it is (Staging), so that a
// graph may have the copies in it. A value; allocates nothing.
#ifndef DOVETAIL_WORKER_DEVICE_COPY_LIST_H_
#define DOVETAIL_WORKER_DEVICE_COPY_LIST_H_

#include <cstdint>

#include "worker/device/device.h"

namespace dovetail::worker {

class CopyList {
 public:
  // Whether it is copied by a kernel, which a graph may have in it, or by copies, each a call,
  // which take nothing of the GPU's processors: for large arrays.
  enum class Way { kKernel, kCopies };

  void Clear() { list_.num = 0; }
  template <typename T>
  void Add(T* to, const T* from, int64_t count) {
    if (count > 0) Append({to, from, count * static_cast<int64_t>(sizeof(T)), nullptr, 0});
  }
  // `rows` rows of `row_floats`, and *more others (null: none), as it says when they are copied.
  void AddRows(float* to, const float* from, int64_t rows, int64_t row_floats, const int32_t* more);

  // To the device, where `more` is the host's.
  void Upload(Device* device, Way way) const;
  // From the device, where `more` is the device's. With `signal` it is behind all copies.
  void Download(Device* device, Way way, bool signal) const;

 private:
  void Append(const kernels::CopyPiece& piece);
  kernels::CopyPieces list_ = {};
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_COPY_LIST_H_
