#include "worker/weight_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

// The file: Header, a checksum of each chunk, zeros up to a page, the weights. Host byte order, as
// the weights have.
constexpr char kMagic[8] = {'D', 'V', 'T', 'W', 'E', 'I', 'G', 'H'};
constexpr uint32_t kVersion = 2;
constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr uint64_t kPageBytes = 4096;
constexpr int64_t kChunksPerSlice = 16;  // between two progress reports

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t reserved;
  uint64_t key;
  uint64_t bytes;
  uint64_t list_checksum;  // of the checksums
  uint64_t checksum;       // of the fields before
};

uint64_t Checksum(const void* data, uint64_t bytes) { return XXH3_64bits(data, bytes); }

uint64_t HeaderChecksum(const Header& header) {
  return Checksum(&header, offsetof(Header, checksum));
}

struct Chunks {
  uint64_t bytes;  // of the weights

  int64_t count() const { return static_cast<int64_t>((bytes + kChunkBytes - 1) / kChunkBytes); }
  uint64_t begin(int64_t i) const { return static_cast<uint64_t>(i) * kChunkBytes; }
  uint64_t size(int64_t i) const { return std::min(kChunkBytes, bytes - begin(i)); }
  // Where the weights begin in the file.
  uint64_t data_offset() const {
    const uint64_t end = sizeof(Header) + sizeof(uint64_t) * static_cast<uint64_t>(count());
    return (end + kPageBytes - 1) / kPageBytes * kPageBytes;
  }
};

bool ReadAt(int fd, void* data, uint64_t bytes, uint64_t offset) {
  auto* to = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
  return true;
}

// 0, or what errno says.
int WriteAt(int fd, const void* data, uint64_t bytes, uint64_t offset) {
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    from += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
  return 0;
}

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

// The checksums, of a file that is what it should be as far as can be said without its weights.
absl::StatusOr<std::vector<uint64_t>> ReadHead(const UniqueFd& fd, const std::string& path,
                                               uint64_t key, const Chunks& chunks) {
  Header header;
  if (!ReadAt(fd.get(), &header, sizeof(header), 0)) return Damaged(path, "it has no header");
  if (!std::equal(std::begin(kMagic), std::end(kMagic), header.magic)) {
    return Damaged(path, "not a file of the weight cache");
  }
  if (header.version != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": its version is ", header.version, ", this program's is ", kVersion));
  }
  if (header.checksum != HeaderChecksum(header)) return Damaged(path, "its header is damaged");
  if (header.key != key || header.bytes != chunks.bytes) {
    return absl::NotFoundError(absl::StrCat(path, ": of other weights"));
  }
  std::vector<uint64_t> checksums(static_cast<size_t>(chunks.count()));
  const uint64_t list_bytes = checksums.size() * sizeof(uint64_t);
  if (!ReadAt(fd.get(), checksums.data(), list_bytes, sizeof(header)) ||
      Checksum(checksums.data(), list_bytes) != header.list_checksum) {
    return Damaged(path, "its checksums are damaged");
  }
  DT_ASSIGN_OR_RETURN(const uint64_t file_bytes, FileBytes(fd, path));
  if (file_bytes != chunks.data_offset() + chunks.bytes) {
    return Damaged(path, absl::StrCat("it has ", file_bytes, " bytes of ",
                                      chunks.data_offset() + chunks.bytes));
  }
  return checksums;
}

// The temporary file, empty and this process's alone until it is closed.
absl::StatusOr<UniqueFd> OpenTemporary(const std::string& path) {
  DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT));
  struct stat opened = {}, named = {};
  // Who had it before us may have renamed it meanwhile: it is then a finished file.
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(fd.get(), &opened) != 0 ||
      ::stat(path.c_str(), &named) != 0 || opened.st_ino != named.st_ino) {
    return absl::AbortedError(absl::StrCat(path, ": another process is writing it"));
  }
  if (::ftruncate(fd.get(), 0) != 0) return ErrnoStatus(errno, "truncate", path);
  return fd;
}

// Everything, by all threads, and on the disk when it returns.
absl::Status WriteAll(const UniqueFd& fd, const std::string& path, uint64_t key,
                      absl::Span<const uint8_t> weights, ThreadPool* pool) {
  const Chunks chunks = {weights.size()};
  DT_RETURN_IF_ERROR(ReserveFile(fd, path, chunks.data_offset() + chunks.bytes));
  std::vector<uint64_t> checksums(static_cast<size_t>(chunks.count()));
  std::atomic<int> error{0};
  pool->Share(chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && error.load() == 0; ++i) {
      const uint8_t* chunk = weights.data() + chunks.begin(i);
      checksums[static_cast<size_t>(i)] = Checksum(chunk, chunks.size(i));
      const int failed =
          WriteAt(fd.get(), chunk, chunks.size(i), chunks.data_offset() + chunks.begin(i));
      if (failed != 0) error.store(failed);
    }
  });
  Header header = {};
  std::copy(std::begin(kMagic), std::end(kMagic), header.magic);
  header.version = kVersion;
  header.key = key;
  header.bytes = chunks.bytes;
  const uint64_t list_bytes = checksums.size() * sizeof(uint64_t);
  header.list_checksum = Checksum(checksums.data(), list_bytes);
  header.checksum = HeaderChecksum(header);
  int failed = error.load();
  if (failed == 0) failed = WriteAt(fd.get(), checksums.data(), list_bytes, sizeof(header));
  if (failed == 0) failed = WriteAt(fd.get(), &header, sizeof(header), 0);
  if (failed == 0 && ::fsync(fd.get()) != 0) failed = errno;
  return failed == 0 ? absl::OkStatus() : ErrnoStatus(failed, "write", path);
}

}  // namespace

std::string WeightCachePath(const std::string& dir, const model::GgufFile& file,
                            const std::string& worker) {
  std::error_code error;
  const std::filesystem::path first = file.shard_paths().front();
  const std::string whole = std::filesystem::weakly_canonical(first, error).string();
  return absl::StrCat(dir, "/", first.stem().string(), "-",
                      absl::Hex(Checksum(whole.data(), whole.size()), absl::kZeroPad16), ".",
                      absl::StrReplaceAll(worker, {{":", "-"}, {"/", "-"}}), ".weights");
}

uint64_t WeightCacheKey(uint64_t weights_key, const model::GgufFile& file) {
  std::string text = absl::StrCat(weights_key);
  for (const std::string& path : file.shard_paths()) {
    struct stat info = {};
    (void)::stat(path.c_str(), &info);
    absl::StrAppend(&text, " ", info.st_size, " ", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec);
  }
  return Checksum(text.data(), text.size());
}

absl::Status ReadWeightCache(const std::string& path, uint64_t key, absl::Span<uint8_t> weights,
                             ThreadPool* pool,
                             const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  DT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  const Chunks chunks = {weights.size()};
  DT_ASSIGN_OR_RETURN(const std::vector<uint64_t> checksums, ReadHead(fd, path, key, chunks));
  const auto read_ahead = [&](int64_t chunk) {
    (void)::posix_fadvise(fd.get(), static_cast<off_t>(chunks.data_offset() + chunks.begin(chunk)),
                          static_cast<off_t>(kChunksPerSlice * kChunkBytes), POSIX_FADV_WILLNEED);
  };
  read_ahead(0);
  std::atomic<int64_t> damaged{-1};
  for (int64_t first = 0; first < chunks.count(); first += kChunksPerSlice) {
    const int64_t count = std::min(kChunksPerSlice, chunks.count() - first);
    read_ahead(first + count);
    pool->Share(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = first + begin; i < first + end; ++i) {
        uint8_t* chunk = weights.data() + chunks.begin(i);
        if (!ReadAt(fd.get(), chunk, chunks.size(i), chunks.data_offset() + chunks.begin(i)) ||
            Checksum(chunk, chunks.size(i)) != checksums[static_cast<size_t>(i)]) {
          damaged.store(i);
        }
      }
    });
    if (damaged.load() >= 0) {
      const uint64_t at = chunks.data_offset() + chunks.begin(damaged.load());
      return Damaged(path, absl::StrCat("damaged in the ", kChunkBytes, " bytes from ", at, " on"));
    }
    const uint64_t done = chunks.begin(first + count - 1) + chunks.size(first + count - 1);
    if (progress && !progress(done, chunks.bytes)) {
      return absl::CancelledError("loading was stopped");
    }
  }
  return absl::OkStatus();
}

absl::Status WriteWeightCache(const std::string& path, uint64_t key,
                              absl::Span<const uint8_t> weights, ThreadPool* pool) {
  const std::string temporary = path + ".tmp";
  std::error_code error;  // opening a file says it better
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  DT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenTemporary(temporary));
  absl::Status status = WriteAll(fd, temporary, key, weights, pool);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename", temporary);
  }
  if (!status.ok()) (void)::unlink(temporary.c_str());
  return status;
}

}  // namespace dovetail::worker
