#include "coordinator/worker_edges.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "transport/exchange.h"
#include "transport/remote_edges.h"

namespace dovetail::coordinator {
namespace {

struct Edge {
  std::string from;
  std::string to;
  std::string kind;
  bool both_ways = false;
};

// By what frames go, and rows where there is no link.
absl::string_view KindOfRing(const std::string& from, const std::string& to) {
  return transport::IsRemoteEdge(from, to) ? "tcp" : "ring";
}

std::string KindOf(const Route& route, GpuLinks links, const std::string& from,
                   const std::string& to) {
  const absl::string_view ring = KindOfRing(from, to);
  if (!MayHaveLink(route, links, from, to)) return std::string(ring);
  return links == GpuLinks::kAuto ? absl::StrCat("ipc or ", ring)
                                  : std::string(GpuLinksName(links));
}

void Add(std::vector<Edge>* edges, Edge edge) {
  const auto back = std::find_if(edges->begin(), edges->end(), [&](const Edge& e) {
    return e.from == edge.to && e.to == edge.from && e.kind == edge.kind;
  });
  if (back != edges->end()) {
    back->both_ways = true;
  } else {
    edges->push_back(std::move(edge));
  }
}

}  // namespace

bool MayHaveLink(const Route& route, GpuLinks links, const std::string& from,
                 const std::string& to) {
  for (size_t i = 0; i + 1 < route.size(); ++i) {
    const bool hop = route[i].worker == from && route[i + 1].worker == to;
    if (hop && IsLinkedHop(route, i, links)) return true;
  }
  return false;
}

std::vector<std::string> EdgesOf(const Route& route, GpuLinks links, const std::string& worker) {
  const auto spec = transport::ExchangeSpec::ForRoute(route, /*epoch=*/0, /*ring_bytes=*/0);
  std::vector<Edge> edges;
  for (const auto& [from, to] : spec.edges) {
    if (from != worker && to != worker) continue;
    Add(&edges, {from, to, KindOf(route, links, from, to)});
  }
  for (const auto& [from, to] : spec.gathers) {
    if (from == worker || to == worker) Add(&edges, {from, to, "rows"});
  }
  std::vector<std::string> names;
  for (const Edge& e : edges) {
    names.push_back(absl::StrCat(e.from, e.both_ways ? " <-> " : " -> ", e.to, " (", e.kind, ")"));
  }
  return names;
}

}  // namespace dovetail::coordinator
