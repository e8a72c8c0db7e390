// The exchange of an epoch as the coordinator makes it, and what a worker is told of it.
//
// Pure functions but for the exchange file, and the threads that connect the coordinator's own
// edges to other hosts (transport/tcp_edge.h).
#ifndef DOVETAIL_COORDINATOR_EPOCH_EXCHANGE_H_
#define DOVETAIL_COORDINATOR_EPOCH_EXCHANGE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/gpu_links.h"
#include "base/route.h"
#include "transport/exchange.h"
#include "transport/remote_edges.h"

namespace dovetail::v1 {
class Connect;
}  // namespace dovetail::v1

namespace dovetail::coordinator {

struct EpochExchangeSpec {
  uint64_t epoch = 0;
  std::string path;  // of the file
  uint64_t ring_bytes = 0;
  GpuLinks gpu_links = GpuLinks::kHost;
  std::map<std::string, std::string> addresses;  // where workers of other hosts listen
  std::string edge_key;                          // of all connections between hosts
  absl::Duration connect_timeout;
};

struct EpochExchange {
  std::shared_ptr<transport::Exchange> exchange;  // connected to other hosts by and by
  std::vector<transport::RemoteEdge> remote;      // all edges between hosts
};

absl::StatusOr<EpochExchange> MakeEpochExchange(const Route& route, const EpochExchangeSpec& spec);

// Of a worker of another host the file is none of its business.
void TellWorker(const EpochExchangeSpec& spec, const std::vector<transport::RemoteEdge>& remote,
                const std::string& worker, v1::Connect* connect);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_EPOCH_EXCHANGE_H_
