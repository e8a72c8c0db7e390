#include "transport/remote_edges.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "transport/tcp_edge.h"
#include "transport/tcp_socket.h"

namespace dovetail::transport {
namespace {

bool IsRemote(absl::string_view endpoint) { return !HostOf(endpoint).empty(); }

bool IsRemote(const std::pair<std::string, std::string>& edge) {
  return IsRemoteEdge(edge.first, edge.second);
}

using Connect = std::function<absl::StatusOr<UniqueFd>(StopFn stop)>;

absl::StatusOr<Connect> ConnectorOf(const RemoteEdge& edge, const EdgeId& id,
                                    absl::string_view endpoint, EdgeListener* listener,
                                    absl::Duration timeout) {
  if (edge.listening_end() == endpoint) {
    if (listener == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("edge ", id.name(), ": this process does not listen"));
    }
    return Connect(
        [id, listener, timeout](StopFn stop) { return listener->Await(id, timeout, stop); });
  }
  DT_ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(edge.address));
  return Connect(
      [id, address, timeout](StopFn stop) { return DialEdge(id, address, timeout, stop); });
}

}  // namespace

bool IsRemoteEdge(absl::string_view from, absl::string_view to) {
  return IsRemote(from) || IsRemote(to);
}

const std::string& RemoteEdge::listening_end() const { return IsRemote(to) ? to : from; }

ExchangeSpec LocalPart(const ExchangeSpec& spec) {
  ExchangeSpec local = spec;
  std::erase_if(local.endpoints, [](const std::string& name) { return IsRemote(name); });
  std::erase_if(local.edges, [](const auto& edge) { return IsRemote(edge); });
  std::erase_if(local.gathers, [](const auto& edge) { return IsRemote(edge); });
  return local;
}

ExchangeSpec SpecOfRemoteWorker(absl::string_view worker, uint64_t epoch, uint64_t ring_bytes) {
  return {.epoch = epoch,
          .endpoints = {kCoordinator, std::string(worker)},
          .edges = {},
          .gathers = {},
          .ring_bytes = ring_bytes};
}

std::vector<RemoteEdge> RemoteEdgesOf(const ExchangeSpec& spec) {
  std::vector<RemoteEdge> remote;
  const auto add = [&](const auto& edges, EdgeKind kind) {
    for (const auto& edge : edges) {
      if (IsRemote(edge)) remote.push_back({.from = edge.first, .to = edge.second, .kind = kind});
    }
  };
  add(spec.edges, EdgeKind::kSteps);
  add(spec.gathers, EdgeKind::kGather);
  return remote;
}

absl::Status AddRemoteEdges(absl::string_view endpoint, absl::Span<const RemoteEdge> edges,
                            const std::string& key, EdgeListener* listener, absl::Duration timeout,
                            Exchange* exchange) {
  for (const RemoteEdge& edge : edges) {
    if (!edge.HasEnd(endpoint)) continue;
    if (key.size() != kEdgeKeyBytes || edge.from.size() > kMaxEdgeName ||
        edge.to.size() > kMaxEdgeName) {
      return absl::InternalError(absl::StrCat("edge ", edge.from, " -> ", edge.to, ": its key has ",
                                              key.size(), " bytes, not ", kEdgeKeyBytes,
                                              ", or a name is too long"));
    }
    TcpEdgeOptions options;
    options.edge = {key, exchange->epoch(), edge.from, edge.to, edge.kind};
    options.has_answer = edge.has_answer;
    DT_ASSIGN_OR_RETURN(options.connect,
                        ConnectorOf(edge, options.edge, endpoint, listener, timeout));
    DT_RETURN_IF_ERROR(exchange->AddRemote(endpoint, std::move(options)));
  }
  return absl::OkStatus();
}

}  // namespace dovetail::transport
