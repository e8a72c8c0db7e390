#include "worker/device/held_writes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

// Floats and counts that nobody takes for right ones.
constexpr int kRubbish = 0xa5;

}  // namespace

absl::Status HeldWrites::Add(uint8_t* data, int64_t bytes) {
  DT_ASSIGN_OR_RETURN(MemoryMap twin, MemoryMap::MapAnonymous(static_cast<uint64_t>(bytes)));
  twins_.emplace(data, std::move(twin));
  return absl::OkStatus();
}

void HeldWrites::Remove(uint8_t* data) {
  const auto twin = twins_.find(data);
  if (twin == twins_.end()) return;
  const uint8_t* const past = data + twin->second.size();
  const auto is_there = [&](const Write& write) { return write.to >= data && write.to < past; };
  for (size_t& signal : signals_) {
    signal -= static_cast<size_t>(
        std::count_if(writes_.begin(), writes_.begin() + static_cast<ptrdiff_t>(signal), is_there));
  }
  writes_.erase(std::remove_if(writes_.begin(), writes_.end(), is_there), writes_.end());
  twins_.erase(twin);
}

uint8_t* HeldWrites::TwinOf(void* to) const {
  uint8_t* const wanted = static_cast<uint8_t*>(to);
  auto twin = twins_.upper_bound(wanted);
  if (twin == twins_.begin()) return wanted;
  --twin;
  const auto offset = static_cast<uint64_t>(wanted - twin->first);
  return offset < twin->second.size() ? twin->second.data() + offset : wanted;
}

void HeldWrites::Hold(void* to, int64_t bytes) {
  uint8_t* const twin = TwinOf(to);
  if (twin == to || bytes <= 0) return;
  std::memset(to, kRubbish, static_cast<size_t>(bytes));
  writes_.push_back({static_cast<uint8_t*>(to), twin, bytes});
}

void HeldWrites::Release(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const Write& write = writes_[i];
    std::memcpy(write.to, write.from, static_cast<size_t>(write.bytes));
  }
  writes_.erase(writes_.begin(), writes_.begin() + static_cast<ptrdiff_t>(count));
  for (size_t& signal : signals_) signal -= std::min(count, signal);
}

void HeldWrites::ReleaseSignalled(size_t later) {
  if (signals_.size() <= later) return;  // those before were waited for
  const auto awaited = signals_.end() - static_cast<ptrdiff_t>(later) - 1;
  Release(*awaited);
  signals_.erase(signals_.begin(), awaited + 1);
}

void HeldWrites::ReleaseAll() {
  Release(writes_.size());
  signals_.clear();
}

}  // namespace dovetail::worker
