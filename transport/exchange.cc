#include "transport/exchange.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/patience.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "transport/exchange_layout.h"
#include "transport/shm_ring.h"
#include "transport/tcp_edge.h"

namespace dovetail::transport {
namespace {

// How soon a wait notices that another process ended the epoch.
constexpr absl::Duration kAbortSlice = absl::Milliseconds(100);

void AddOnce(std::vector<std::string>* names, const std::string& name) {
  if (std::find(names->begin(), names->end(), name) == names->end()) names->push_back(name);
}

// Makes a file of `bytes` zero bytes and maps it.
absl::StatusOr<MemoryMap> MapNewFile(const std::string& path, uint64_t bytes) {
  DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL));
  DT_RETURN_IF_ERROR(ReserveFile(fd, path, bytes));
  return MemoryMap::MapFile(fd, bytes, path);
}

}  // namespace

ExchangeSpec ExchangeSpec::ForRoute(const Route& route, uint64_t epoch, uint64_t ring_bytes) {
  ExchangeSpec spec;
  spec.epoch = epoch;
  spec.ring_bytes = ring_bytes;
  spec.endpoints.push_back(kCoordinator);
  if (route.empty()) return spec;
  const auto add = [](std::vector<std::pair<std::string, std::string>>* edges,
                      const std::string& from, const std::string& to) {
    const std::pair<std::string, std::string> edge(from, to);
    if (from == to || std::count(edges->begin(), edges->end(), edge) > 0) return;
    edges->push_back(edge);
  };
  const std::string coordinator = kCoordinator;
  const std::string* previous = &coordinator;
  for (const Segment& segment : route) {
    AddOnce(&spec.endpoints, segment.worker);
    add(&spec.edges, *previous, segment.worker);
    previous = &segment.worker;
    for (const Member& member : segment.members) {
      AddOnce(&spec.endpoints, member.worker);
      add(&spec.edges, segment.worker, member.worker);
      for (const Member& other : segment.members) add(&spec.gathers, member.worker, other.worker);
    }
  }
  add(&spec.edges, *previous, coordinator);
  return spec;
}

uint64_t ExchangeSpec::TotalBytes() const {
  return LayOut(endpoints.size(), edges.size() + gathers.size(), ring_bytes).total_bytes;
}

struct Exchange::Impl {
  ExchangeSpec spec;
  ExchangeLayout layout;
  MemoryMap map;

  mutable std::mutex mutex;
  std::condition_variable changed;
  size_t num_up = 0;                             // of `remote`; guarded by mutex
  absl::Status failure;                          // guarded by mutex
  std::vector<std::unique_ptr<TcpEdge>> remote;  // last: their threads use all of this

  void Adopt(ExchangeSpec new_spec, MemoryMap new_map) {
    layout = LayOut(new_spec.endpoints.size(), new_spec.edges.size() + new_spec.gathers.size(),
                    new_spec.ring_bytes);
    spec = std::move(new_spec);
    map = std::move(new_map);
    DT_CHECK(map.size() >= layout.total_bytes);
  }
  ExchangeHeader* header() const { return reinterpret_cast<ExchangeHeader*>(map.data()); }
  DoorbellState* Bell(size_t endpoint) const {
    return reinterpret_cast<DoorbellState*>(map.data() + layout.DoorbellOffset(endpoint));
  }
  absl::StatusOr<size_t> EndpointIndex(absl::string_view name) const {
    for (size_t i = 0; i < spec.endpoints.size(); ++i) {
      if (spec.endpoints[i] == name) return i;
    }
    return absl::NotFoundError(
        absl::StrCat("exchange of epoch ", spec.epoch, " has no endpoint \"", name, "\""));
  }
  absl::StatusOr<RingView> FindRing(absl::string_view from, absl::string_view to,
                                    EdgeKind kind) const;
};

absl::StatusOr<RingView> Exchange::Impl::FindRing(absl::string_view from, absl::string_view to,
                                                  EdgeKind kind) const {
  for (const auto& edge : remote) {
    const EdgeId& id = edge->edge();
    if (id.from == from && id.to == to && id.kind == kind) return edge->ring();
  }
  DT_ASSIGN_OR_RETURN(const size_t from_idx, EndpointIndex(from));
  DT_ASSIGN_OR_RETURN(const size_t to_idx, EndpointIndex(to));
  const bool gathers = kind == EdgeKind::kGather;
  const std::string name = absl::StrCat(from, " -> ", to, gathers ? " (rows)" : "");
  const auto& edges = gathers ? spec.gathers : spec.edges;
  for (size_t i = 0; i < edges.size(); ++i) {
    if (edges[i].first != from || edges[i].second != to) continue;
    uint8_t* ring = map.data() + layout.RingOffset(gathers ? spec.edges.size() + i : i);
    return RingView{.control = reinterpret_cast<RingControl*>(ring),
                    .bytes = ring + sizeof(RingControl),
                    .capacity = layout.ring_bytes,
                    .sender_bell = Bell(from_idx),
                    .receiver_bell = Bell(to_idx),
                    .aborted = &header()->aborted,
                    .name = name};
  }
  return absl::NotFoundError(absl::StrCat("exchange of epoch ", spec.epoch, " has no edge ", name));
}

Exchange::Exchange() : impl_(std::make_unique<Impl>()) {}
Exchange::~Exchange() {
  impl_->remote.clear();  // whose threads may be about to call Abort()
}

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::Create(const std::string& path,
                                                           const ExchangeSpec& spec) {
  DT_RETURN_IF_ERROR(ValidateSpec(spec));
  // Renamed when it is whole, so that nobody opens a part of it.
  const std::string temporary = path + ".tmp";
  unlink(temporary.c_str());
  absl::StatusOr<MemoryMap> map = MapNewFile(temporary, spec.TotalBytes());
  if (!map.ok()) {
    unlink(temporary.c_str());
    return map.status();
  }
  WriteExchange(spec, map->data());
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = ErrnoStatus(errno, "rename to", path);
    unlink(temporary.c_str());
    return status;
  }
  std::unique_ptr<Exchange> exchange(new Exchange());
  exchange->impl_->Adopt(spec, *std::move(map));
  return exchange;
}

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::Open(const std::string& path, uint64_t epoch) {
  DT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR));
  DT_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd, path));
  if (bytes < sizeof(ExchangeHeader)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": not an exchange file, ", bytes, " bytes"));
  }
  DT_ASSIGN_OR_RETURN(MemoryMap map, MemoryMap::MapFile(fd, bytes, path));
  DT_ASSIGN_OR_RETURN(ExchangeSpec spec,
                      ReadExchange(absl::MakeConstSpan(map.data(), map.size()), epoch, path));
  std::unique_ptr<Exchange> exchange(new Exchange());
  exchange->impl_->Adopt(std::move(spec), std::move(map));
  return exchange;
}

std::unique_ptr<Exchange> Exchange::CreateInProcess(const ExchangeSpec& spec) {
  DT_CHECK(ValidateSpec(spec).ok());
  absl::StatusOr<MemoryMap> map = MemoryMap::MapAnonymous(spec.TotalBytes());
  DT_CHECK(map.ok());
  WriteExchange(spec, map->data());
  std::unique_ptr<Exchange> exchange(new Exchange());
  exchange->impl_->Adopt(spec, *std::move(map));
  return exchange;
}

uint64_t Exchange::epoch() const { return impl_->spec.epoch; }

uint64_t Exchange::ring_bytes() const { return impl_->layout.ring_bytes; }

uint64_t Exchange::BytesTouchedBySending(absl::string_view from) const {
  uint64_t bytes = 0;
  size_t ring = 0;
  for (const auto* edges : {&impl_->spec.edges, &impl_->spec.gathers}) {
    for (const auto& edge : *edges) {
      const uint8_t* at = impl_->map.data() + impl_->layout.RingOffset(ring++);
      if (edge.first != from) continue;
      const uint64_t sent =
          reinterpret_cast<const RingControl*>(at)->tail.load(std::memory_order_relaxed);
      bytes += std::min(sent, impl_->layout.ring_bytes);
    }
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<TensorSender>> Exchange::Sender(absl::string_view from,
                                                               absl::string_view to,
                                                               EdgeKind kind) {
  DT_ASSIGN_OR_RETURN(const RingView ring, impl_->FindRing(from, to, kind));
  return std::make_unique<ShmRingSender>(ring);
}

absl::StatusOr<std::unique_ptr<TensorReceiver>> Exchange::Receiver(absl::string_view from,
                                                                   absl::string_view to,
                                                                   EdgeKind kind) {
  DT_ASSIGN_OR_RETURN(const RingView ring, impl_->FindRing(from, to, kind));
  return std::make_unique<ShmRingReceiver>(ring);
}

absl::StatusOr<std::unique_ptr<Doorbell>> Exchange::DoorbellOf(absl::string_view endpoint) {
  DT_ASSIGN_OR_RETURN(const size_t index, impl_->EndpointIndex(endpoint));
  return std::make_unique<ShmDoorbell>(impl_->Bell(index));
}

absl::Status Exchange::AddRemote(absl::string_view endpoint, TcpEdgeOptions options) {
  DT_ASSIGN_OR_RETURN(const size_t own, impl_->EndpointIndex(endpoint));
  options.sends = options.edge.from == endpoint;
  options.ring_bytes = impl_->layout.ring_bytes;
  options.bell = impl_->Bell(own);
  options.aborted = &impl_->header()->aborted;
  options.up = [impl = impl_.get()] {
    std::lock_guard<std::mutex> lock(impl->mutex);
    ++impl->num_up;
    impl->changed.notify_all();
  };
  options.broken = [this](const absl::Status& status) {
    {
      std::lock_guard<std::mutex> lock(impl_->mutex);
      if (impl_->failure.ok() && !aborted()) impl_->failure = status;
    }
    Abort();
  };
  DT_ASSIGN_OR_RETURN(auto edge, TcpEdge::Start(std::move(options)));
  impl_->remote.push_back(std::move(edge));
  return absl::OkStatus();
}

absl::Status Exchange::AwaitRemote(absl::Duration timeout) {
  Patience patience(timeout);
  std::unique_lock<std::mutex> lock(impl_->mutex);
  while (impl_->num_up < impl_->remote.size()) {
    if (!impl_->failure.ok()) return impl_->failure;
    if (aborted()) return absl::AbortedError("the epoch ended");
    if (patience.Exhausted()) {
      return absl::DeadlineExceededError(absl::StrCat(
          impl_->remote.size() - impl_->num_up, " edges to other hosts are not connected after ",
          absl::FormatDuration(timeout)));
    }
    impl_->changed.wait_for(
        lock, absl::ToChronoNanoseconds(std::min(kAbortSlice, patience.UntilNextLook())));
  }
  return absl::OkStatus();
}

absl::Status Exchange::failure() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->failure;
}

void Exchange::Abort() {
  // Marked before the bells: whoever is woken sees the mark.
  impl_->header()->aborted.store(1, std::memory_order_seq_cst);
  for (size_t i = 0; i < impl_->spec.endpoints.size(); ++i) ShmDoorbell(impl_->Bell(i)).Ring();
}

bool Exchange::aborted() const {
  return impl_->header()->aborted.load(std::memory_order_seq_cst) != 0;
}

}  // namespace dovetail::transport
