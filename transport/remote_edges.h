// Which edges of an exchange lead to other hosts, and how a process makes its ends of them.
//
// A worker whose name begins with a host's ("host-b/cpu:0") is of that host; the coordinator and
// all others are of the coordinator's. Edges of one host are in its exchange file, but for those of
// other hosts: every edge that has such a worker at an end goes by TCP, also between two workers of
// one host. One end of each listens: that of another host, so that nothing of the coordinator's
// host has to be reachable; of two such the receiver. Plain data and functions of it.
#ifndef DOVETAIL_TRANSPORT_REMOTE_EDGES_H_
#define DOVETAIL_TRANSPORT_REMOTE_EDGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "transport/edge_listener.h"
#include "transport/exchange.h"

namespace dovetail::transport {

// Whether an edge between these ends goes by TCP.
bool IsRemoteEdge(absl::string_view from, absl::string_view to);

struct RemoteEdge {
  std::string from;
  std::string to;
  EdgeKind kind = EdgeKind::kSteps;
  bool has_answer = false;  // TcpEdgeOptions
  std::string address;      // of the end that listens; for the other one
  bool operator==(const RemoteEdge&) const = default;

  const std::string& listening_end() const;
  bool HasEnd(absl::string_view endpoint) const { return from == endpoint || to == endpoint; }
};

// The exchange file's part of it: the endpoints and edges of the coordinator's host.
ExchangeSpec LocalPart(const ExchangeSpec& spec);
// What a worker of another host has in its memory: itself, the coordinator's name, no edge.
ExchangeSpec SpecOfRemoteWorker(absl::string_view worker, uint64_t epoch, uint64_t ring_bytes);
// The other edges; their addresses and answers are for the caller to fill in.
std::vector<RemoteEdge> RemoteEdgesOf(const ExchangeSpec& spec);

// Adds the ends that `endpoint` has of them to its exchange. `key` is the job's (edge_listener.h);
// `listener` may be null where no edge is for this process to listen for, and outlives the
// exchange. InvalidArgument: an address that cannot be one.
absl::Status AddRemoteEdges(absl::string_view endpoint, absl::Span<const RemoteEdge> edges,
                            const std::string& key, EdgeListener* listener, absl::Duration timeout,
                            Exchange* exchange);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_REMOTE_EDGES_H_
