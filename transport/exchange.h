// Exchange: the shared memory of one epoch: a doorbell per endpoint and a ring per edge, in one
// file of the run directory.
//
// The coordinator creates it from the route, the workers open it by name; nothing is inherited, so
// the processes may live in different containers that share the directory. Endpoints are named: the
// workers' names, and kCoordinator. Edges of a route w1, w2, ..., wn: kCoordinator -> w1, wi ->
// w(i+1) for each hop (one ring per distinct pair), wn -> kCoordinator. Where several workers share
// the rows of a segment, wi is the first of them: it has an edge to each of the others, and all of
// them have rings of a second kind to each other, in which nothing but gathered rows can be.
//
// Edges to and from other hosts (transport/tcp_edge.h) are not in the file: each process adds its
// own ends. A worker of another host sees no file at all; its exchange is its own,
// CreateInProcess() with no edge but those. Whoever asks for a sender or a receiver does not see
// the difference.
//
// Abort() marks the epoch as over for all processes and wakes every waiter. A mapping stays valid
// as long as the object; the file is removed by the coordinator.
#ifndef DOVETAIL_TRANSPORT_EXCHANGE_H_
#define DOVETAIL_TRANSPORT_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/route.h"
#include "transport/tensor_channel.h"

namespace dovetail::transport {

inline constexpr char kCoordinator[] = "coordinator";

// What is sent along an edge: steps and outputs, or the rows that members of a segment gather.
enum class EdgeKind : uint32_t { kSteps = 0, kGather = 1 };

struct ExchangeSpec {
  uint64_t epoch = 0;
  std::vector<std::string> endpoints;                        // kCoordinator first
  std::vector<std::pair<std::string, std::string>> edges;    // (from, to), distinct; kSteps
  std::vector<std::pair<std::string, std::string>> gathers;  // the same, kGather
  uint64_t ring_bytes = 0;  // capacity of each ring; rounded up to a power of two

  static ExchangeSpec ForRoute(const Route& route, uint64_t epoch, uint64_t ring_bytes);
  // Bytes of the whole file, for the memory plan.
  uint64_t TotalBytes() const;
};

class TcpEdge;
struct TcpEdgeOptions;

class Exchange {
 public:
  // Creates the file (removing a leftover of the same name) and maps it.
  static absl::StatusOr<std::unique_ptr<Exchange>> Create(const std::string& path,
                                                          const ExchangeSpec& spec);
  // Maps an existing one; every offset in it is checked. kFailedPrecondition: another epoch or
  // format.
  static absl::StatusOr<std::unique_ptr<Exchange>> Open(const std::string& path, uint64_t epoch);
  // In anonymous memory, for tests with threads instead of processes.
  static std::unique_ptr<Exchange> CreateInProcess(const ExchangeSpec& spec);
  ~Exchange();

  uint64_t epoch() const;
  // NotFound names the edge or endpoint. The returned objects borrow from this Exchange.
  absl::StatusOr<std::unique_ptr<TensorSender>> Sender(absl::string_view from, absl::string_view to,
                                                       EdgeKind kind = EdgeKind::kSteps);
  absl::StatusOr<std::unique_ptr<TensorReceiver>> Receiver(absl::string_view from,
                                                           absl::string_view to,
                                                           EdgeKind kind = EdgeKind::kSteps);
  // The bytes that a ring holds.
  uint64_t ring_bytes() const;
  // What was written to so far of the rings that begin at `from`: pages that are in its process's
  // memory too, while a plan has every ring at the end where it is read. Any thread.
  uint64_t BytesTouchedBySending(absl::string_view from) const;
  absl::StatusOr<std::unique_ptr<Doorbell>> DoorbellOf(absl::string_view endpoint);

  // Adds this process's end of an edge to or from another host: `endpoint` is the process. Of
  // `options` the exchange sets what is its own (ring, bell, abort, callbacks). When the edge
  // breaks, the epoch ends, and failure() says why. Before any sender or receiver is asked for.
  absl::Status AddRemote(absl::string_view endpoint, TcpEdgeOptions options);
  // Returns when all those are connected; kAborted when the epoch ends, kDeadlineExceeded.
  absl::Status AwaitRemote(absl::Duration timeout);
  // Of an edge to another host that broke in this process; ok: none did.
  absl::Status failure() const;

  void Abort();
  bool aborted() const;

 private:
  Exchange();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_EXCHANGE_H_
