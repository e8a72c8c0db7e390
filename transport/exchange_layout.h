// The bytes of an exchange file (docs/wire_format.md) and the checks on one that another process
// wrote.
//
// The layout follows from the spec alone: header, endpoint table, edge table, doorbells, rings. The
// tables carry offsets all the same, and a file is accepted only if each is the one that this
// program would have written. Stateless; thread-safe.
#ifndef DOVETAIL_TRANSPORT_EXCHANGE_LAYOUT_H_
#define DOVETAIL_TRANSPORT_EXCHANGE_LAYOUT_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "transport/exchange.h"

namespace dovetail::transport {

inline constexpr uint64_t kExchangeMagic = 0x474843584c565444;  // "DTVLXCHG"
inline constexpr uint32_t kExchangeVersion = 2;
inline constexpr uint32_t kMaxEndpoints = 1024;
inline constexpr uint32_t kMaxEdges = 4096;
inline constexpr uint64_t kMinRingBytes = 64;
inline constexpr uint64_t kMaxRingBytes = uint64_t{1} << 32;

struct ExchangeHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t num_endpoints;
  uint32_t num_edges;
  uint32_t reserved;
  uint64_t epoch;
  uint64_t ring_bytes;
  uint64_t total_bytes;
  // On a line of its own: every call reads it, and it is written once.
  alignas(64) std::atomic<uint32_t> aborted;
};
static_assert(sizeof(ExchangeHeader) == 128);

struct EndpointEntry {
  char name[56];  // zero-terminated
  uint64_t doorbell_offset;
};
static_assert(sizeof(EndpointEntry) == 64);

struct EdgeEntry {
  uint32_t from;  // index into the endpoints
  uint32_t to;
  uint32_t kind;  // EdgeKind; those of steps come first
  uint32_t reserved;
  uint64_t ring_offset;  // RingControl, then ring_bytes bytes
};
static_assert(sizeof(EdgeEntry) == 24);

// Where everything lies: all offsets are multiples of 64, rings of 4096.
struct ExchangeLayout {
  uint64_t ring_bytes = 0;  // a power of two
  uint64_t endpoints_offset = 0;
  uint64_t edges_offset = 0;
  uint64_t doorbells_offset = 0;
  uint64_t rings_offset = 0;
  uint64_t ring_stride = 0;
  uint64_t total_bytes = 0;

  uint64_t DoorbellOffset(uint64_t endpoint) const;
  uint64_t RingOffset(uint64_t edge) const { return rings_offset + edge * ring_stride; }
};
ExchangeLayout LayOut(uint64_t num_endpoints, uint64_t num_edges, uint64_t ring_bytes);

// InvalidArgument lists what is wrong: names that are empty, too long or repeated, edges between
// unknown endpoints, counts and sizes beyond the limits.
absl::Status ValidateSpec(const ExchangeSpec& spec);

// Fills zeroed memory of LayOut(...).total_bytes bytes. The magic comes last.
void WriteExchange(const ExchangeSpec& spec, uint8_t* base);

// Reads the spec back out of `mapped` bytes that another process wrote, each field once. `path` is
// for messages. kFailedPrecondition: another format, version or epoch; kInternal: damaged.
absl::StatusOr<ExchangeSpec> ReadExchange(absl::Span<const uint8_t> mapped, uint64_t epoch,
                                          const std::string& path);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_EXCHANGE_LAYOUT_H_
