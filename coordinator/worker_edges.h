// EdgesOf: what joins a worker to the others and to the coordinator on a route, in words, for the
// message that says that it was lost.
//
// The edges are those of the route's exchange (transport/exchange.h). Each has its kind: `ring`
// (`tcp` between hosts), or the link that rows of GPU workers go by beside it, as it was configured
// ("ipc or ring" for `auto`: which, the workers know); `rows` are rings of members that share the
// rows of a segment. However often the route comes by, each pair is named once for a kind, with
// "<->" where there are edges both ways. Pure.
#ifndef DOVETAIL_COORDINATOR_WORKER_EDGES_H_
#define DOVETAIL_COORDINATOR_WORKER_EDGES_H_

#include <string>
#include <vector>

#include "base/gpu_links.h"
#include "base/route.h"

namespace dovetail::coordinator {

// Whether there may be a link of that kind beside the ring from one worker to the other.
bool MayHaveLink(const Route& route, GpuLinks links, const std::string& from,
                 const std::string& to);

// {"coordinator -> cuda:0 (ring)", "cuda:0 <-> cuda:1 (nccl)"}, in the order of the route.
std::vector<std::string> EdgesOf(const Route& route, GpuLinks links, const std::string& worker);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_WORKER_EDGES_H_
