#include "worker/device/simt_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/cpu_topology.h"
#include "base/posix.h"
#include "base/process_token.h"
#include "base/status_macros.h"
#include "kernels/simt/table.h"
#include "worker/device/stand_in_stream.h"

namespace dovetail::worker {
namespace {

struct SimtGraph : DeviceGraph {
  int64_t num_kernels() const override { return static_cast<int64_t>(launches.size()); }
  simt::Launches launches;
};

// More than that stays open: to change the access of every page for every launch takes too long.
constexpr int64_t kMostGuardedBytes = int64_t{64} << 20;

class SimtLinkStream : public DeviceStream {
 public:
  void* handle() override { return &stream_; }
  absl::StatusOr<bool> Done() override {
    return stream_.not_done.load(std::memory_order_acquire) == 0;
  }

 private:
  StandInStream stream_;
};

}  // namespace

SimtDevice::SimtDevice(uint64_t seed) {
  stream_.seed = seed;
  stream_.new_seeds = seed != 0;
  stream_.access = [](void* device, bool open) {
    static_cast<SimtDevice*>(device)->SetAccess(open);
  };
  stream_.access_arg = this;
}

absl::StatusOr<DeviceProperties> SimtDevice::Properties() {
  const MemoryInfo memory = ReadMemoryInfo();
  return DeviceProperties{.description = "GPU kernels on a CPU, one thread at a time",
                          .memory_total_bytes = static_cast<int64_t>(memory.total_bytes),
                          .memory_free_bytes = static_cast<int64_t>(memory.available_bytes)};
}

// Of no use to anybody, and not zero, which would mean that it is not known.
absl::StatusOr<double> SimtDevice::MeasureBandwidth() { return 0.001; }

absl::StatusOr<DeviceBuffer> SimtDevice::Allocate(int64_t bytes) {
  DT_ASSIGN_OR_RETURN(MemoryMap map, MemoryMap::MapHuge(static_cast<uint64_t>(bytes)));
  uint8_t* const data = map.data();
  memory_bytes_ += bytes;
  CountHeld(bytes);
  const int access = guarded() ? PROT_NONE : PROT_READ | PROT_WRITE;
  memory_.emplace(data, std::move(map));
  if (!guarded()) SetAccess(true);
  DT_CHECK(mprotect(data, static_cast<size_t>(bytes), access) == 0);
  return DeviceBuffer(this, data, bytes, /*on_host=*/false);
}

// In a file without a name, which other processes open by way of this one's.
absl::StatusOr<DeviceBuffer> SimtDevice::AllocateLink(int64_t bytes) {
  UniqueFd file(memfd_create("dovetail-link", MFD_CLOEXEC));
  if (file.get() < 0) return ErrnoStatus(errno, "memfd_create", "a link's memory");
  if (ftruncate(file.get(), bytes) != 0) return ErrnoStatus(errno, "ftruncate", "a link's memory");
  DT_ASSIGN_OR_RETURN(MemoryMap map,
                      MemoryMap::MapFile(file, static_cast<uint64_t>(bytes), "a link's memory"));
  uint8_t* const data = map.data();
  open_memory_.emplace(data, std::move(map));
  link_files_.emplace(data, std::move(file));
  CountHeld(bytes);
  return DeviceBuffer(this, data, bytes, /*on_host=*/false);
}

absl::StatusOr<LinkMemory> SimtDevice::ShareLink(const DeviceBuffer& buffer) {
  LinkMemory memory = {.process = ProcessToken(),
                       .address = reinterpret_cast<uint64_t>(buffer.data()),
                       .bytes = buffer.bytes()};
  std::snprintf(memory.handle, sizeof(memory.handle), "/proc/%d/fd/%d", getpid(),
                link_files_.at(buffer.data()).get());
  return memory;
}

absl::StatusOr<const uint8_t*> SimtDevice::MapLink(const LinkMemory& memory) {
  if (memory.process == ProcessToken()) return reinterpret_cast<const uint8_t*>(memory.address);
  const std::string path(memory.handle, strnlen(memory.handle, sizeof(memory.handle)));
  const auto file = OpenFile(path, O_RDWR);
  if (!file.ok()) return absl::UnimplementedError(file.status().message());
  DT_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(*file, path));
  if (bytes < static_cast<uint64_t>(memory.bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", bytes, " bytes, ", memory.bytes, " were offered"));
  }
  DT_ASSIGN_OR_RETURN(MemoryMap map,
                      MemoryMap::MapFile(*file, static_cast<uint64_t>(memory.bytes), path));
  const uint8_t* const data = map.data();
  mapped_links_.emplace(data, std::move(map));
  return data;
}

void SimtDevice::UnmapLink(const LinkMemory& /*memory*/, const uint8_t* mapped) {
  mapped_links_.erase(mapped);
}

absl::StatusOr<DeviceBuffer> SimtDevice::AllocateHost(int64_t bytes) {
  DT_ASSIGN_OR_RETURN(MemoryMap map, MemoryMap::MapHuge(static_cast<uint64_t>(bytes)));
  uint8_t* const data = map.data();
  DT_RETURN_IF_ERROR(held_writes_.Add(data, bytes));
  open_memory_.emplace(data, std::move(map));
  return DeviceBuffer(this, data, bytes, /*on_host=*/true);
}

absl::StatusOr<std::unique_ptr<DeviceStream>> SimtDevice::MakeStream() {
  return std::make_unique<SimtLinkStream>();
}

void SimtDevice::Free(uint8_t* data, int64_t bytes, bool on_host) {
  if (!on_host) CountHeld(-bytes);
  if (on_host) held_writes_.Remove(data);
  link_files_.erase(data);
  if (open_memory_.erase(data) == 1) return;
  memory_.erase(data);
  memory_bytes_ -= bytes;
}

const kernels::DeviceTable& SimtDevice::kernels() const { return simt::LaunchTable(); }

bool SimtDevice::guarded() const { return memory_bytes_ <= kMostGuardedBytes; }

void SimtDevice::SetAccess(bool open) {
  if (!guarded() && !open) return;
  for (const auto& [data, map] : memory_) {
    DT_CHECK(mprotect(data, map.size(), open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
  }
}

void SimtDevice::CopyBytes(void* to, const void* from, int64_t bytes) {
  DT_CHECK(stream_.capture == nullptr);
  if (bytes == 0 || !stream_.status.ok()) return;
  ++calls_.copies;
  if (guarded()) SetAccess(true);
  std::memmove(to, from, static_cast<size_t>(bytes));
  if (guarded()) SetAccess(false);
}

void SimtDevice::Download(void* to, const void* from, int64_t bytes) {
  CopyBytes(held_writes_.TwinOf(to), from, bytes);
  held_writes_.Hold(to, bytes);
}

void SimtDevice::CopySmall(const kernels::CopyPieces& pieces, bool signal) {
  kernels::CopyPieces to_twins = pieces;
  for (int i = 0; i < pieces.num; ++i) {
    to_twins.pieces[i].to = held_writes_.TwinOf(pieces.pieces[i].to);
  }
  const kernels::DoneSignal done = {&flag_, &raised_, &blocks_done_};
  kernels().copy_pieces(to_twins, signal ? done : kernels::DoneSignal{}, &stream_);
  if (stream_.capture == nullptr) return HoldPieces(pieces, signal);
  captured_.push_back([this, pieces, signal](simt::Stream*) { HoldPieces(pieces, signal); });
}

void SimtDevice::HoldPieces(const kernels::CopyPieces& pieces, bool signal) {
  for (int i = 0; i < pieces.num; ++i) {
    const kernels::CopyPiece& piece = pieces.pieces[i];
    if (held_writes_.TwinOf(piece.to) == piece.to) continue;
    int64_t bytes = piece.bytes;
    if (piece.count != nullptr) {
      if (guarded()) SetAccess(true);
      bytes += *piece.count * piece.count_bytes;
      if (guarded()) SetAccess(false);
    }
    held_writes_.Hold(piece.to, bytes);
  }
  if (!signal) return;
  ++signals_;
  held_writes_.Signal();
}

void SimtDevice::BeginAside(int side) {
  DT_CHECK(!sides_[side].in_use);  // kernels may still read what is there
  side_ = side;
  sides_[side].uploads.clear();
}

void SimtDevice::UploadAside(void* to, const void* from, int64_t bytes) {
  sides_[side_].uploads.push_back({to, from, bytes});
}

void SimtDevice::AwaitAside(int side) {
  for (const PendingUpload& upload : sides_[side].uploads)
    CopyBytes(upload.to, upload.from, upload.bytes);
  sides_[side].uploads.clear();
  sides_[side].in_use = true;
}

void SimtDevice::ReleaseAside(int side) { sides_[side].in_use = false; }

void SimtDevice::BeginCapture() {
  captured_.clear();
  stream_.capture = &captured_;
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> SimtDevice::EndCapture() {
  stream_.capture = nullptr;
  auto graph = std::make_unique<SimtGraph>();
  graph->launches = std::move(captured_);
  return graph;
}

void SimtDevice::Enqueue(const DeviceGraph& graph) {
  const int64_t kernels_before = stream_.launches;
  for (const auto& launch : static_cast<const SimtGraph&>(graph).launches) launch(&stream_);
  stream_.launches = kernels_before;
  ++calls_.graphs;
}

absl::Status SimtDevice::StreamStatus() const {
  if (stream_.status.ok()) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the SIMT shim, seed ", stream_.seed, ": ", stream_.status.message()));
}

absl::Status SimtDevice::Wait() {
  DT_CHECK(stream_.capture == nullptr);
  ++calls_.waits;
  held_writes_.ReleaseAll();
  return StreamStatus();
}

absl::Status SimtDevice::AwaitEarlierSignal(int later) {
  DT_CHECK(stream_.capture == nullptr);
  DT_RETURN_IF_ERROR(StreamStatus());
  DT_CHECK_EQ(std::atomic_ref<uint64_t>(flag_).load(std::memory_order_acquire), signals_);
  held_writes_.ReleaseSignalled(static_cast<size_t>(later));
  return absl::OkStatus();
}

DeviceCalls SimtDevice::calls() const {
  DeviceCalls calls = calls_;
  calls.kernels = stream_.launches;
  return calls;
}

}  // namespace dovetail::worker
