// Thin owners and helpers over files: every failure is a Status that names the path and the reason.
//
// Stateless functions are thread-safe; UniqueFd and MemoryMap belong to one owner.
#ifndef DOVETAIL_BASE_POSIX_H_
#define DOVETAIL_BASE_POSIX_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// "open /dev/shm/x: Permission denied", with the code that belongs to `error_number`.
absl::Status ErrnoStatus(int error_number, absl::string_view operation, absl::string_view path);

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

// Owns a read-write mapping, shared with every process that maps the same file.
class MemoryMap {
 public:
  MemoryMap() = default;
  MemoryMap(MemoryMap&& other) noexcept;
  MemoryMap& operator=(MemoryMap&& other) noexcept;
  ~MemoryMap();

  // The first `bytes` bytes of `fd`; the file must be at least that long. `path` is for messages.
  static absl::StatusOr<MemoryMap> MapFile(const UniqueFd& fd, uint64_t bytes,
                                           const std::string& path);
  // Zeroed memory that forked children share.
  static absl::StatusOr<MemoryMap> MapAnonymous(uint64_t bytes);
  // Zeroed memory of this process alone, which begins at a huge page and consists of them where the
  // kernel has some. All of it is there at once: kResourceExhausted if the kernel has not as much.
  // The kernel makes the pages, all zero, in as many threads as `share` calls its argument in, each
  // a part: near those threads, where memory is not the same for all.
  using ShareParts = absl::FunctionRef<void(absl::FunctionRef<void(int part, int parts)> run)>;
  static absl::StatusOr<MemoryMap> MapHuge(uint64_t bytes, ShareParts share);
  static absl::StatusOr<MemoryMap> MapHuge(uint64_t bytes);  // in this thread

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  uint64_t size() const { return size_; }

 private:
  static absl::StatusOr<MemoryMap> Map(int fd, uint64_t bytes, int flags, const std::string& path);
  void* data_ = nullptr;
  uint64_t size_ = 0;
};

// open(2) with O_CLOEXEC added.
absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0600);
absl::StatusOr<uint64_t> FileBytes(const UniqueFd& fd, const std::string& path);

// The whole file. kResourceExhausted: it has more than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes);
// Readers see the old content or the new one, never a part: written to "<path>.tmp", then renamed.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content,
                                 mode_t mode = 0600);

// Makes the empty file `bytes` long with all its room reserved, so that writing to a mapping of it
// cannot fail later. kResourceExhausted: the file system has less room, with both figures.
absl::Status ReserveFile(const UniqueFd& fd, const std::string& path, uint64_t bytes);

// Lets this process open as many files as its hard limit allows; returns how many that are.
int64_t RaiseFileLimit();

}  // namespace dovetail

#endif  // DOVETAIL_BASE_POSIX_H_
