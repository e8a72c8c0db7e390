#include "base/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;

// Part `part` of the huge pages of a memory; false: there are no more. Linux before 5.14 does not
// know how, and takes the pages when they are written.
bool MakePages(uint8_t* data, uint64_t bytes, int part, int parts) {
  const uint64_t pages = (bytes + kHugePage - 1) / kHugePage;
  const uint64_t begin = pages * part / parts * kHugePage;
  const uint64_t end = std::min(pages * (part + 1) / parts * kHugePage, bytes);
  if (begin >= end) return true;
  return madvise(data + begin, end - begin, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
}

absl::Status NoRoom(const std::string& path, uint64_t wanted, uint64_t available) {
  return absl::ResourceExhaustedError(absl::StrCat(
      path, ": needs ", wanted, " bytes, but its file system has ", available, " free"));
}

absl::StatusOr<uint64_t> FreeBytes(const UniqueFd& fd, const std::string& path) {
  struct statvfs info;
  if (fstatvfs(fd.get(), &info) != 0) return ErrnoStatus(errno, "statvfs", path);
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

absl::Status WriteAll(const UniqueFd& fd, absl::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = write(fd.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", path);
    content.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrnoStatus(int error_number, absl::string_view operation, absl::string_view path) {
  return absl::ErrnoToStatus(error_number, absl::StrCat(operation, " ", path));
}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

void UniqueFd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

MemoryMap::MemoryMap(MemoryMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MemoryMap& MemoryMap::operator=(MemoryMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MemoryMap::~MemoryMap() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::StatusOr<MemoryMap> MemoryMap::Map(int fd, uint64_t bytes, int flags,
                                         const std::string& path) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (data == MAP_FAILED)
    return ErrnoStatus(errno, absl::StrCat("mmap ", bytes, " bytes of"), path);
  MemoryMap map;
  map.data_ = data;
  map.size_ = bytes;
  return map;
}

absl::StatusOr<MemoryMap> MemoryMap::MapFile(const UniqueFd& fd, uint64_t bytes,
                                             const std::string& path) {
  DT_ASSIGN_OR_RETURN(const uint64_t file_bytes, FileBytes(fd, path));
  if (file_bytes < bytes) {
    return absl::OutOfRangeError(
        absl::StrCat(path, ": has ", file_bytes, " bytes where ", bytes, " are to be mapped"));
  }
  return Map(fd.get(), bytes, MAP_SHARED, path);
}

absl::StatusOr<MemoryMap> MemoryMap::MapAnonymous(uint64_t bytes) {
  return Map(-1, bytes, MAP_SHARED | MAP_ANONYMOUS, "anonymous memory");
}

absl::StatusOr<MemoryMap> MemoryMap::MapHuge(uint64_t bytes) {
  return MapHuge(bytes, [](absl::FunctionRef<void(int, int)> run) { run(0, 1); });
}

absl::StatusOr<MemoryMap> MemoryMap::MapHuge(uint64_t bytes, ShareParts share) {
  DT_ASSIGN_OR_RETURN(MemoryMap map, Map(-1, bytes + kHugePage, MAP_PRIVATE | MAP_ANONYMOUS,
                                         "memory of this process"));
  // What lies before the first huge page, and after the last byte, is given back.
  uint8_t* const first = map.data();
  const uint64_t before = (kHugePage - reinterpret_cast<uintptr_t>(first) % kHugePage) % kHugePage;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t used = (bytes + page - 1) / page * page;
  const uint64_t after = (map.size_ + page - 1) / page * page - before - used;
  if (before > 0) munmap(first, before);
  if (after > 0) munmap(first + before + used, after);
  map.data_ = first + before;
  map.size_ = bytes;
  madvise(map.data_, used, MADV_HUGEPAGE);  // in vain where they are switched off
  std::atomic<bool> made{true};
  share([&](int part, int parts) {
    if (!MakePages(map.data(), used, part, parts)) made.store(false);
  });
  if (!made.load()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system does not give ", bytes, " bytes of memory"));
  }
  return map;
}

absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  for (;;) {
    UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC, mode));
    if (fd.valid()) return fd;
    if (errno != EINTR) return ErrnoStatus(errno, "open", path);
  }
}

absl::StatusOr<uint64_t> FileBytes(const UniqueFd& fd, const std::string& path) {
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "stat", path);
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path);
    if (got == 0) return content;
    if (content.size() + static_cast<uint64_t>(got) > max_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(path, ": more than ", max_bytes, " bytes"));
    }
    content.append(buffer, static_cast<size_t>(got));
  }
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content, mode_t mode) {
  const std::string temporary = path + ".tmp";
  absl::Status status = [&]() -> absl::Status {
    DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode));
    DT_RETURN_IF_ERROR(WriteAll(fd, content, temporary));
    // Without it a crash of the machine may leave the new name with no content.
    if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "fsync", temporary);
    if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename to", path);
    return absl::OkStatus();
  }();
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::Status ReserveFile(const UniqueFd& fd, const std::string& path, uint64_t bytes) {
  DT_ASSIGN_OR_RETURN(const uint64_t available, FreeBytes(fd, path));
  if (available < bytes) return NoRoom(path, bytes, available);
  // A sparse file on a full tmpfs would end in SIGBUS at the first write, hence the blocks now.
  const int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
  if (error == ENOSPC) {
    const absl::StatusOr<uint64_t> left = FreeBytes(fd, path);
    return NoRoom(path, bytes, std::min(available, left.ok() ? *left : available));
  }
  if (error != 0) return ErrnoStatus(error, absl::StrCat("reserve ", bytes, " bytes of"), path);
  return absl::OkStatus();
}

int64_t RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  const bool raised = setrlimit(RLIMIT_NOFILE, &limit) == 0;
  const rlim_t now = raised ? limit.rlim_cur : before;
  return static_cast<int64_t>(std::min<rlim_t>(now, INT64_MAX));
}

}  // namespace dovetail
