#include "transport/shared_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr uint64_t kSegmentMagic = 0x4d4745534c565444;  // "DTVLSEGM"
constexpr uint32_t kSegmentVersion = 1;
// A whole page, so that the content starts on one.
constexpr uint64_t kHeaderBytes = 4096;

struct SegmentHeader {
  uint64_t magic;
  uint32_t version;
  std::atomic<uint32_t> complete;
  uint64_t key;
  uint64_t bytes;
};
static_assert(sizeof(SegmentHeader) <= kHeaderBytes);

SegmentHeader* HeaderOf(const MemoryMap& map) {
  return reinterpret_cast<SegmentHeader*>(map.data());
}

absl::Status Lock(const UniqueFd& fd, const std::string& path) {
  if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "flock", path);
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": another worker has this segment open; two must not share a name"));
}

bool Matches(const SegmentHeader& header, uint64_t key, uint64_t bytes) {
  return header.magic == kSegmentMagic && header.version == kSegmentVersion && header.key == key &&
         header.bytes == bytes && header.complete.load(std::memory_order_acquire) == 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::OpenOrCreate(const std::string& path,
                                                                           uint64_t key,
                                                                           uint64_t bytes) {
  const uint64_t file_bytes = kHeaderBytes + bytes;
  std::unique_ptr<SharedSegment> segment(new SharedSegment());
  segment->bytes_ = bytes;
  absl::StatusOr<UniqueFd> found = OpenFile(path, O_RDWR | O_NOFOLLOW);
  if (found.ok()) {
    DT_RETURN_IF_ERROR(Lock(*found, path));
    DT_ASSIGN_OR_RETURN(const uint64_t found_bytes, FileBytes(*found, path));
    if (found_bytes == file_bytes) {
      DT_ASSIGN_OR_RETURN(segment->map_, MemoryMap::MapFile(*found, file_bytes, path));
      if (Matches(*HeaderOf(segment->map_), key, bytes)) {
        segment->lock_ = *std::move(found);
        segment->was_complete_ = true;
        return segment;
      }
      segment->map_ = MemoryMap();
    }
    if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "remove", path);
    found->reset();  // its room is free before the new one asks for some
  } else if (!absl::IsNotFound(found.status())) {
    return found.status();
  }

  DT_ASSIGN_OR_RETURN(segment->lock_, OpenFile(path, O_RDWR | O_CREAT | O_EXCL));
  absl::Status status = Lock(segment->lock_, path);
  if (status.ok()) status = ReserveFile(segment->lock_, path, file_bytes);
  if (!status.ok()) {
    unlink(path.c_str());
    return status;
  }
  DT_ASSIGN_OR_RETURN(segment->map_, MemoryMap::MapFile(segment->lock_, file_bytes, path));
  SegmentHeader* header = HeaderOf(segment->map_);
  header->magic = kSegmentMagic;
  header->version = kSegmentVersion;
  header->key = key;
  header->bytes = bytes;
  return segment;
}

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::OpenComplete(const std::string& path,
                                                                           uint64_t key,
                                                                           uint64_t bytes) {
  DT_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_RDWR | O_NOFOLLOW));
  DT_ASSIGN_OR_RETURN(const uint64_t found_bytes, FileBytes(file, path));
  std::unique_ptr<SharedSegment> segment(new SharedSegment());
  segment->bytes_ = bytes;
  if (found_bytes == kHeaderBytes + bytes) {
    DT_ASSIGN_OR_RETURN(segment->map_, MemoryMap::MapFile(file, found_bytes, path));
    if (Matches(*HeaderOf(segment->map_), key, bytes)) {
      segment->was_complete_ = true;
      return segment;
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path, " is not complete, or has other weights than the plan says"));
}

uint8_t* SharedSegment::data() const { return map_.data() + kHeaderBytes; }

void SharedSegment::MarkComplete() { HeaderOf(map_)->complete.store(1, std::memory_order_release); }

}  // namespace dovetail::transport
