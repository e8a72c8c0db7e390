#include "coordinator/epoch_exchange.h"

#include "base/status_macros.h"
#include "coordinator/worker_edges.h"
#include "dovetail/v1/cluster.pb.h"

namespace dovetail::coordinator {
namespace {

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

absl::StatusOr<EpochExchange> MakeEpochExchange(const Route& route, const EpochExchangeSpec& spec) {
  const auto all = transport::ExchangeSpec::ForRoute(route, spec.epoch, spec.ring_bytes);
  EpochExchange made;
  made.remote = transport::RemoteEdgesOf(all);
  for (transport::RemoteEdge& edge : made.remote) {
    const auto address = spec.addresses.find(edge.listening_end());
    if (address != spec.addresses.end()) edge.address = address->second;
    edge.has_answer = edge.kind == transport::EdgeKind::kSteps &&
                      MayHaveLink(route, spec.gpu_links, edge.from, edge.to);
  }
  DT_ASSIGN_OR_RETURN(made.exchange,
                      transport::Exchange::Create(spec.path, transport::LocalPart(all)));
  DT_RETURN_IF_ERROR(transport::AddRemoteEdges(transport::kCoordinator, made.remote, spec.edge_key,
                                               nullptr, spec.connect_timeout, made.exchange.get()));
  return made;
}

void TellWorker(const EpochExchangeSpec& spec, const std::vector<transport::RemoteEdge>& remote,
                const std::string& worker, v1::Connect* connect) {
  connect->set_epoch(spec.epoch);
  if (HostOf(worker).empty()) connect->set_exchange_file(BaseName(spec.path));
  for (const transport::RemoteEdge& edge : remote) {
    if (!edge.HasEnd(worker)) continue;
    v1::RemoteEdge* told = connect->add_remote_edges();
    told->set_from(edge.from);
    told->set_to(edge.to);
    told->set_gathers(edge.kind == transport::EdgeKind::kGather);
    told->set_has_answer(edge.has_answer);
    if (edge.listening_end() != worker) told->set_address(edge.address);
  }
}

}  // namespace dovetail::coordinator
