#include "transport/exchange_layout.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "transport/shm_ring.h"

namespace dovetail::transport {
namespace {

constexpr uint64_t kPageBytes = 4096;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::InternalError(absl::StrCat(path, ": damaged exchange file: ", what));
}

// The part of the header before `aborted`, which other processes may write at any time.
struct HeaderFields {
  uint64_t magic;
  uint32_t version, num_endpoints, num_edges, reserved;
  uint64_t epoch, ring_bytes, total_bytes;
};
static_assert(offsetof(ExchangeHeader, total_bytes) == offsetof(HeaderFields, total_bytes));

absl::Status CheckHeader(const HeaderFields& header, uint64_t mapped_bytes, uint64_t epoch,
                         const std::string& path) {
  if (header.magic != kExchangeMagic) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not an exchange file"));
  }
  if (header.version != kExchangeVersion) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": exchange format ", header.version,
                                                      ", this program knows ", kExchangeVersion));
  }
  if (header.epoch != epoch) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": belongs to epoch ", header.epoch, ", not ", epoch));
  }
  if (header.num_endpoints > kMaxEndpoints || header.num_edges > kMaxEdges) {
    return Damaged(path,
                   absl::StrCat(header.num_endpoints, " endpoints, ", header.num_edges, " edges"));
  }
  if (header.ring_bytes < kMinRingBytes || header.ring_bytes > kMaxRingBytes ||
      !std::has_single_bit(header.ring_bytes)) {
    return Damaged(path, absl::StrCat("rings of ", header.ring_bytes, " bytes"));
  }
  const ExchangeLayout layout = LayOut(header.num_endpoints, header.num_edges, header.ring_bytes);
  if (header.total_bytes != layout.total_bytes || mapped_bytes < layout.total_bytes) {
    return Damaged(path, absl::StrCat("states ", header.total_bytes, " bytes, has ", mapped_bytes,
                                      ", needs ", layout.total_bytes));
  }
  return absl::OkStatus();
}

absl::Status ReadEndpoints(const uint8_t* base, const ExchangeLayout& layout, uint32_t count,
                           const std::string& path, ExchangeSpec* spec) {
  for (uint32_t i = 0; i < count; ++i) {
    EndpointEntry entry;
    std::memcpy(&entry, base + layout.endpoints_offset + i * sizeof(entry), sizeof(entry));
    if (entry.doorbell_offset != layout.DoorbellOffset(i)) {
      return Damaged(path, absl::StrCat("endpoint ", i, ": doorbell at ", entry.doorbell_offset,
                                        ", expected at ", layout.DoorbellOffset(i)));
    }
    if (std::memchr(entry.name, 0, sizeof(entry.name)) == nullptr) {
      return Damaged(path, absl::StrCat("endpoint ", i, ": name without an end"));
    }
    spec->endpoints.emplace_back(entry.name);
  }
  return absl::OkStatus();
}

absl::Status ReadEdges(const uint8_t* base, const ExchangeLayout& layout, uint32_t count,
                       const std::string& path, ExchangeSpec* spec) {
  for (uint32_t i = 0; i < count; ++i) {
    EdgeEntry entry;
    std::memcpy(&entry, base + layout.edges_offset + i * sizeof(entry), sizeof(entry));
    if (entry.from >= spec->endpoints.size() || entry.to >= spec->endpoints.size()) {
      return Damaged(path, absl::StrCat("edge ", i, ": from endpoint ", entry.from, " to ",
                                        entry.to, " of ", spec->endpoints.size()));
    }
    if (entry.ring_offset != layout.RingOffset(i)) {
      return Damaged(path, absl::StrCat("edge ", i, ": ring at ", entry.ring_offset,
                                        ", expected at ", layout.RingOffset(i)));
    }
    const bool gathers = entry.kind == static_cast<uint32_t>(EdgeKind::kGather);
    if (!gathers &&
        (entry.kind != static_cast<uint32_t>(EdgeKind::kSteps) || !spec->gathers.empty())) {
      return Damaged(path, absl::StrCat("edge ", i, ": is of kind ", entry.kind));
    }
    auto& edges = gathers ? spec->gathers : spec->edges;
    edges.emplace_back(spec->endpoints[entry.from], spec->endpoints[entry.to]);
  }
  return absl::OkStatus();
}

uint32_t IndexOf(const std::vector<std::string>& names, const std::string& name) {
  return static_cast<uint32_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

void CheckEdges(const std::set<std::string>& names,
                const std::vector<std::pair<std::string, std::string>>& all,
                std::vector<std::string>* mistakes) {
  std::set<std::pair<std::string, std::string>> edges;
  for (const auto& [from, to] : all) {
    const std::string edge = absl::StrCat("edge ", from, " -> ", to);
    if (names.count(from) == 0 || names.count(to) == 0) {
      mistakes->push_back(absl::StrCat(edge, " names an unknown endpoint"));
    }
    if (!edges.emplace(from, to).second) mistakes->push_back(absl::StrCat(edge, " is there twice"));
  }
}

void WriteEdges(const ExchangeSpec& spec, const ExchangeLayout& layout, uint8_t* base) {
  size_t i = 0;
  const auto write = [&](const std::pair<std::string, std::string>& edge, EdgeKind kind) {
    const EdgeEntry entry = {IndexOf(spec.endpoints, edge.first),
                             IndexOf(spec.endpoints, edge.second), static_cast<uint32_t>(kind), 0,
                             layout.RingOffset(i)};
    std::memcpy(base + layout.edges_offset + i++ * sizeof(entry), &entry, sizeof(entry));
  };
  for (const auto& edge : spec.edges) write(edge, EdgeKind::kSteps);
  for (const auto& edge : spec.gathers) write(edge, EdgeKind::kGather);
}

}  // namespace

uint64_t ExchangeLayout::DoorbellOffset(uint64_t endpoint) const {
  return doorbells_offset + endpoint * sizeof(DoorbellState);
}

ExchangeLayout LayOut(uint64_t num_endpoints, uint64_t num_edges, uint64_t ring_bytes) {
  ExchangeLayout layout;
  layout.ring_bytes = std::bit_ceil(std::clamp(ring_bytes, kMinRingBytes, kMaxRingBytes));
  layout.endpoints_offset = sizeof(ExchangeHeader);
  layout.edges_offset = layout.endpoints_offset + num_endpoints * sizeof(EndpointEntry);
  layout.doorbells_offset = RoundUp(layout.edges_offset + num_edges * sizeof(EdgeEntry), 64);
  layout.rings_offset = RoundUp(layout.DoorbellOffset(num_endpoints), kPageBytes);
  layout.ring_stride = RoundUp(sizeof(RingControl) + layout.ring_bytes, kPageBytes);
  layout.total_bytes = layout.RingOffset(num_edges);
  return layout;
}

absl::Status ValidateSpec(const ExchangeSpec& spec) {
  std::vector<std::string> mistakes;
  if (spec.endpoints.empty() || spec.endpoints[0] != kCoordinator) {
    mistakes.push_back(absl::StrCat("the first endpoint must be \"", kCoordinator, "\""));
  }
  const size_t num_edges = spec.edges.size() + spec.gathers.size();
  if (spec.endpoints.size() > kMaxEndpoints || num_edges > kMaxEdges) {
    mistakes.push_back(absl::StrCat(spec.endpoints.size(), " endpoints and ", num_edges,
                                    " edges, at most ", kMaxEndpoints, " and ", kMaxEdges));
  }
  if (spec.ring_bytes == 0 || spec.ring_bytes > kMaxRingBytes) {
    mistakes.push_back(
        absl::StrCat("rings of ", spec.ring_bytes, " bytes, allowed are 1 to ", kMaxRingBytes));
  }
  std::set<std::string> names;
  for (const std::string& name : spec.endpoints) {
    if (name.empty() || name.size() >= sizeof(EndpointEntry::name) ||
        name.find('\0') != std::string::npos) {
      mistakes.push_back(absl::StrCat("endpoint \"", name, "\": a name has 1 to ",
                                      sizeof(EndpointEntry::name) - 1, " bytes"));
    }
    if (!names.insert(name).second) {
      mistakes.push_back(absl::StrCat("endpoint \"", name, "\" is there twice"));
    }
  }
  CheckEdges(names, spec.edges, &mistakes);
  CheckEdges(names, spec.gathers, &mistakes);
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("exchange: ", absl::StrJoin(mistakes, "; ")));
}

void WriteExchange(const ExchangeSpec& spec, uint8_t* base) {
  const size_t num_edges = spec.edges.size() + spec.gathers.size();
  const ExchangeLayout layout = LayOut(spec.endpoints.size(), num_edges, spec.ring_bytes);
  for (size_t i = 0; i < spec.endpoints.size(); ++i) {
    EndpointEntry entry = {};
    std::memcpy(entry.name, spec.endpoints[i].data(), spec.endpoints[i].size());
    entry.doorbell_offset = layout.DoorbellOffset(i);
    std::memcpy(base + layout.endpoints_offset + i * sizeof(entry), &entry, sizeof(entry));
  }
  WriteEdges(spec, layout, base);
  auto* header = reinterpret_cast<ExchangeHeader*>(base);
  header->version = kExchangeVersion;
  header->num_endpoints = static_cast<uint32_t>(spec.endpoints.size());
  header->num_edges = static_cast<uint32_t>(num_edges);
  header->epoch = spec.epoch;
  header->ring_bytes = layout.ring_bytes;
  header->total_bytes = layout.total_bytes;
  header->magic = kExchangeMagic;
}

absl::StatusOr<ExchangeSpec> ReadExchange(absl::Span<const uint8_t> mapped, uint64_t epoch,
                                          const std::string& path) {
  if (mapped.size() < sizeof(ExchangeHeader)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": not an exchange file, ", mapped.size(), " bytes"));
  }
  HeaderFields header;
  std::memcpy(&header, mapped.data(), sizeof(header));
  DT_RETURN_IF_ERROR(CheckHeader(header, mapped.size(), epoch, path));
  const ExchangeLayout layout = LayOut(header.num_endpoints, header.num_edges, header.ring_bytes);
  ExchangeSpec spec;
  spec.epoch = header.epoch;
  spec.ring_bytes = header.ring_bytes;
  DT_RETURN_IF_ERROR(ReadEndpoints(mapped.data(), layout, header.num_endpoints, path, &spec));
  DT_RETURN_IF_ERROR(ReadEdges(mapped.data(), layout, header.num_edges, path, &spec));
  const absl::Status valid = ValidateSpec(spec);
  if (!valid.ok()) return Damaged(path, valid.message());
  return spec;
}

}  // namespace dovetail::transport
