#include "worker/memory.h"

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/huge_pages.h"
#include "base/status_macros.h"

namespace dovetail::worker {

absl::StatusOr<MemoryKind> ParseMemoryKind(absl::string_view text) {
  if (text == "auto") return MemoryKind::kAuto;
  if (text == "shared") return MemoryKind::kShared;
  if (text == "private") return MemoryKind::kPrivate;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is none of auto, shared and private"));
}

MemoryKind ChooseMemoryKind(MemoryKind kind, const std::string& run_dir) {
  if (kind != MemoryKind::kAuto) return kind;
  return HasSharedHugePages(run_dir) || !HasPrivateHugePages() ? MemoryKind::kShared
                                                               : MemoryKind::kPrivate;
}

std::unique_ptr<Memory> Memory::Make(uint64_t key, uint64_t bytes) {
  auto memory = absl::WrapUnique(new Memory());
  memory->key_ = key;
  memory->bytes_ = bytes;
  return memory;
}

absl::StatusOr<std::unique_ptr<Memory>> Memory::Open(const std::string& path, uint64_t key,
                                                     uint64_t bytes,
                                                     std::unique_ptr<Memory> previous,
                                                     ThreadPool* pool) {
  if (path.empty() && previous != nullptr && previous->map_.size() > 0 &&
      previous->Holds(key, bytes)) {
    previous->was_complete_ = true;
    return previous;
  }
  previous.reset();
  auto memory = Make(key, bytes);
  if (path.empty()) {
    const auto share = [&](absl::FunctionRef<void(int, int)> run) {
      if (pool == nullptr) return run(0, 1);
      pool->Run(run);
    };
    DT_ASSIGN_OR_RETURN(memory->map_, MemoryMap::MapHuge(bytes, share));
    return memory;
  }
  DT_ASSIGN_OR_RETURN(memory->segment_, transport::SharedSegment::OpenOrCreate(path, key, bytes));
  memory->complete_ = memory->was_complete_ = memory->segment_->was_complete();
  return memory;
}

absl::StatusOr<std::unique_ptr<Memory>> Memory::MapComplete(const std::string& path, uint64_t key,
                                                            uint64_t bytes) {
  auto memory = Make(key, bytes);
  DT_ASSIGN_OR_RETURN(memory->segment_, transport::SharedSegment::OpenComplete(path, key, bytes));
  memory->complete_ = memory->was_complete_ = true;
  return memory;
}

absl::StatusOr<std::unique_ptr<Memory>> Memory::OpenOnDevice(Device* device, uint64_t key,
                                                             uint64_t bytes,
                                                             std::unique_ptr<Memory> previous) {
  if (previous != nullptr && previous->buffer_.data() != nullptr && previous->Holds(key, bytes)) {
    previous->was_complete_ = true;
    return previous;
  }
  previous.reset();
  auto memory = Make(key, bytes);
  DT_ASSIGN_OR_RETURN(memory->buffer_, device->Allocate(static_cast<int64_t>(bytes)));
  return memory;
}

uint8_t* Memory::data() const {
  if (segment_ != nullptr) return segment_->data();
  return buffer_.data() != nullptr ? buffer_.data() : map_.data();
}

void Memory::MarkComplete() {
  if (segment_ != nullptr) segment_->MarkComplete();
  complete_ = true;
}

}  // namespace dovetail::worker
