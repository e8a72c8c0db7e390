#include "tools/dovetail/segment_times.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/plan_table.h"
#include "dovetail/v1/admin.pb.h"

namespace dovetail::tools {
namespace {

struct Group {
  std::string name;  // the worker, and what its segments compute
  int segments = 0;
  double milliseconds = 0;  // of a step in all of them
  uint32_t slowest = 0;     // a segment's index
  double slowest_milliseconds = 0;
};

// "attention, router, shared_experts": the kinds of its ops, as rules name them.
std::string KindsOf(const v1::GetPlanResponse& plan, uint32_t segment) {
  std::vector<std::string> kinds;
  if (segment >= static_cast<uint32_t>(plan.route_size())) return "";
  for (const v1::RouteOp& op : plan.route(static_cast<int>(segment)).ops()) {
    const std::string& name = v1::OpKind_Name(op.kind());
    std::string kind = absl::AsciiStrToLower(absl::StripPrefix(name, "OP_KIND_"));
    if (!absl::c_linear_search(kinds, kind)) kinds.push_back(std::move(kind));
  }
  return absl::StrJoin(kinds, ", ");
}

void Add(const std::string& name, const v1::SegmentStatus& segment, std::vector<Group>* groups) {
  const double milliseconds =
      static_cast<double>(segment.busy_microseconds()) / static_cast<double>(segment.steps()) / 1e3;
  auto group = absl::c_find_if(*groups, [&](const Group& g) { return g.name == name; });
  if (group == groups->end()) group = groups->insert(group, {.name = name});
  ++group->segments;
  group->milliseconds += milliseconds;
  if (milliseconds < group->slowest_milliseconds) return;
  group->slowest = segment.index();
  group->slowest_milliseconds = milliseconds;
}

std::vector<Group> GroupsOf(const v1::GetStatusResponse& status, const v1::GetPlanResponse& plan) {
  std::vector<Group> groups;
  for (const v1::WorkerStatus& worker : status.workers()) {
    for (const v1::SegmentStatus& segment : worker.segments()) {
      if (segment.steps() == 0) continue;
      const std::string kinds = KindsOf(plan, segment.index());
      Add(absl::StrFormat("%-9s %s", worker.name(), kinds), segment, &groups);
    }
  }
  absl::c_stable_sort(
      groups, [](const Group& a, const Group& b) { return a.milliseconds > b.milliseconds; });
  return groups;
}

}  // namespace

std::string SegmentTimesTable(const v1::GetStatusResponse& status,
                              const v1::GetPlanResponse& plan) {
  const std::vector<Group> groups = GroupsOf(status, plan);
  if (groups.empty()) return "";
  double all = 0;
  for (const Group& group : groups) all += group.milliseconds;
  std::vector<std::vector<std::string>> rows = {
      {"a step's time", "segments", "time", "share", "slowest segment"}};
  for (const Group& group : groups) {
    const double share = all > 0 ? 100 * group.milliseconds / all : 0;
    rows.push_back({group.name, absl::StrFormat("%d", group.segments),
                    absl::StrFormat("%.2f ms", group.milliseconds),
                    absl::StrFormat("%.0f %%", share),
                    absl::StrFormat("%d: %.2f ms", group.slowest, group.slowest_milliseconds)});
  }
  return coordinator::FormatTable(rows);
}

}  // namespace dovetail::tools
