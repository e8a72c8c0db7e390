// SharedArray: shared memory of a block that knows who has touched it.
//
// Reading what another thread wrote, or writing what another read or wrote, without a wait of both
// between is a race; so is reading what was never written in this block, or what a copy that nobody
// has waited for will write. Each is a finding (simt.h), as is an index outside of the array. One
// object for each array of a kernel and thread of the host; DT_SHARED makes it.
#ifndef DOVETAIL_KERNELS_SIMT_SHARED_ARRAY_H_
#define DOVETAIL_KERNELS_SIMT_SHARED_ARRAY_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/simt/simt.h"

namespace dovetail::simt {

// Who touched one element, since the block `block` began.
class Shadow {
 public:
  explicit Shadow(uint64_t block = 0) : block_(block) {}
  uint64_t block() const { return block_; }
  // What is wrong with an access now; nullptr: nothing, and it is noted.
  const char* Read(const Moment& now) {
    if (pending_) return "read before its copy was waited for";
    if (!written_) return "read before it was written";
    if (Unordered(writer_, now)) return "read while another thread writes";
    NoteReader(now);
    return nullptr;
  }
  const char* Write(const Moment& now) {
    if (pending_) return "written while a copy goes there";
    if (written_ && Unordered(writer_, now)) return "written while another thread writes";
    if (read_ && ReadersUnordered(now)) return "written while another thread reads";
    written_ = true;
    writer_ = now;
    read_ = false;
    return nullptr;
  }
  const char* BeginCopy(const Moment& now) {
    const char* wrong = Write(now);
    pending_ = true;
    return wrong;
  }
  void EndCopy(const Moment& now) {
    pending_ = false;
    writer_ = now;
  }

 private:
  // Whether no wait lies between what happened then and now.
  static bool Unordered(const Moment& then, const Moment& now) {
    if (then.thread == now.thread || then.block_epoch != now.block_epoch) return false;
    return then.warp != now.warp || then.warp_epoch == now.warp_epoch;
  }
  bool ReadersUnordered(const Moment& now) const {
    if (reader_.block_epoch != now.block_epoch) return false;
    if (several_warps_) return true;
    if (reader_.warp != now.warp) return true;
    return reader_.warp_epoch == now.warp_epoch && (several_ || reader_.thread != now.thread);
  }
  void NoteReader(const Moment& now) {
    const bool together = read_ && reader_.block_epoch == now.block_epoch;
    several_warps_ = together && (several_warps_ || reader_.warp != now.warp);
    several_ = together && reader_.warp_epoch == now.warp_epoch &&
               (several_ || reader_.thread != now.thread);
    reader_ = now;
    read_ = true;
  }

  uint64_t block_;
  Moment writer_, reader_;
  bool written_ = false, read_ = false, pending_ = false;
  bool several_ = false;        // readers, since the warp's last wait
  bool several_warps_ = false;  // have readers, since the block's last wait
};

template <typename T, int kSize>
class SharedArray {
 public:
  static_assert(std::is_trivially_copyable_v<T>);
  using Element = T;

  // An element that is read as a T and assigned from one.
  class Ref {
   public:
    Ref(SharedArray* array, int64_t index) : array_(array), index_(index) {}
    operator T() const { return array_->Read(index_); }  // NOLINT: as an element is
    const Ref& operator=(T value) const {
      array_->Write(index_, value);
      return *this;
    }
    const Ref& operator=(const Ref& other) const {  // NOLINT: the element's value
      return *this = static_cast<T>(other);
    }
    const Ref& operator+=(T value) const { return *this = static_cast<T>(*this) + value; }

   private:
    SharedArray* array_;
    int64_t index_;
  };

  explicit SharedArray(const char* name) : name_(name), shadows_(kSize) {}

  // The array of the block that runs now.
  SharedArray& Enter() {
    const uint64_t block = Now().launch_block;
    if (block != block_) {
      block_ = block;
      std::memset(data_, 0xcd, sizeof(data_));
    }
    return *this;
  }

  Ref operator[](int64_t index) { return Ref(this, index); }

  T Read(int64_t index) {
    Check(index, At(index).Read(Now()));
    return data_[index];
  }
  void Write(int64_t index, T value) {
    Check(index, At(index).Write(Now()));
    data_[index] = value;
  }

  // Elements [index, index + sizeof(Vector) / sizeof(T)) as one access.
  template <typename Vector>
  Vector ReadVector(int64_t index) {
    CheckAligned<Vector>(index);
    for (int64_t i = 0; i < ElementsOf(sizeof(Vector)); ++i) Read(index + i);
    Vector v;
    std::memcpy(&v, data_ + index, sizeof(Vector));
    return v;
  }
  template <typename Vector>
  void WriteVector(int64_t index, const Vector& v) {
    CheckAligned<Vector>(index);
    T values[ElementsOf(sizeof(Vector))];
    std::memcpy(values, &v, sizeof(Vector));
    for (int64_t i = 0; i < ElementsOf(sizeof(Vector)); ++i) Write(index + i, values[i]);
  }

  // A copy of `bytes` that is done when this thread waits for it.
  void BeginCopy(int64_t index, const void* from, size_t bytes) {
    if (index * sizeof(T) % bytes != 0) Fail(absl::StrCat(Name(index), ": a copy not aligned"));
    for (int64_t i = 0; i < ElementsOf(bytes); ++i) {
      Check(index + i, At(index + i).BeginCopy(Now()));
    }
    const auto end = [](void* array, int64_t at, const void* source, size_t size) {
      static_cast<SharedArray*>(array)->EndCopy(at, source, size);
    };
    AddCopy({end, this, index, from, bytes});
  }

 private:
  static constexpr int64_t ElementsOf(size_t bytes) {
    return static_cast<int64_t>(bytes / sizeof(T));
  }
  void EndCopy(int64_t index, const void* from, size_t bytes) {
    std::memcpy(data_ + index, from, bytes);
    for (int64_t i = 0; i < ElementsOf(bytes); ++i) At(index + i).EndCopy(Now());
  }
  std::string Name(int64_t index) const { return absl::StrCat(name_, "[", index, "]"); }
  Shadow& At(int64_t index) {
    if (index < 0 || index >= kSize) {
      Fail(absl::StrCat(Name(index), ": the array has ", kSize, " elements"));
    }
    Shadow& shadow = shadows_[static_cast<size_t>(index)];
    if (shadow.block() != block_) shadow = Shadow(block_);
    return shadow;
  }
  void Check(int64_t index, const char* wrong) const {
    if (wrong != nullptr) Fail(absl::StrCat(Name(index), ": ", wrong));
  }
  template <typename Vector>
  void CheckAligned(int64_t index) const {
    static_assert(sizeof(Vector) % sizeof(T) == 0);
    if (index * sizeof(T) % sizeof(Vector) != 0) {
      Fail(absl::StrCat(Name(index), ": a vector of ", sizeof(Vector), " bytes not aligned"));
    }
  }

  const char* name_;
  uint64_t block_ = 0;
  alignas(16) T data_[kSize];
  std::vector<Shadow> shadows_;
};

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_SHARED_ARRAY_H_
