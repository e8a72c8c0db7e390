#include "base/route.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "base/check.h"

namespace dovetail {

int MemberOf(const Segment& segment, const std::string& worker) {
  if (segment.members.empty()) return segment.worker == worker ? 0 : -1;
  for (size_t i = 0; i < segment.members.size(); ++i) {
    if (segment.members[i].worker == worker) return static_cast<int>(i);
  }
  return -1;
}

std::vector<Op> OpsOfMember(const Segment& segment, int member) {
  std::vector<Op> ops = segment.ops;
  if (segment.members.empty()) return ops;
  DT_CHECK(segment.members.size() <= size_t{kMaxRowMembers});
  RowSplit rows;
  rows.member = member;
  for (const Member& m : segment.members) rows.shares[rows.members++] = m.share;
  for (Op& op : ops) op.rows = rows;
  return ops;
}

namespace {

bool IsKind(absl::string_view worker, absl::string_view kind) {
  return absl::StartsWith(DeviceOf(worker), kind);
}

bool IsGpu(absl::string_view worker) { return IsKind(worker, "cuda:") || IsKind(worker, "simt:"); }

// Weights are found in the run directory, which only the coordinator's host has.
bool SeesWeightsOf(absl::string_view worker, absl::string_view owner) {
  return HostOf(owner).empty() && HostOf(worker).empty() && IsKind(owner, "cpu:");
}

bool IsExpertsAlone(const Segment& segment) {
  return segment.members.empty() &&
         std::all_of(segment.ops.begin(), segment.ops.end(),
                     [](const Op& op) { return op.kind == OpKind::kExperts; });
}

}  // namespace

absl::string_view HostOf(absl::string_view worker) {
  const size_t slash = worker.find('/');
  return slash == absl::string_view::npos ? "" : worker.substr(0, slash);
}

absl::string_view DeviceOf(absl::string_view worker) {
  const size_t slash = worker.find('/');
  return slash == absl::string_view::npos ? worker : worker.substr(slash + 1);
}

bool OnOneHost(absl::string_view a, absl::string_view b) { return HostOf(a) == HostOf(b); }

std::vector<bool> StreamedSegments(const Route& route, const std::string& worker) {
  std::vector<bool> streamed(route.size(), false);
  const auto own = [&](size_t i) { return route[i].worker == worker && route[i].members.empty(); };
  for (size_t i = 0; i < route.size(); ++i) {
    if (!own(i)) continue;
    size_t end = i + 1;
    while (end < route.size() && !own(end) && IsExpertsAlone(route[end]) &&
           SeesWeightsOf(worker, route[end].worker)) {
      ++end;
    }
    if (end < route.size() && own(end))
      std::fill(streamed.begin() + i + 1, streamed.begin() + end, true);
  }
  return streamed;
}

bool IsLinkedHop(const Route& route, size_t i, GpuLinks links) {
  if (links == GpuLinks::kHost || i + 1 >= route.size() || !route[i + 1].members.empty())
    return false;
  const std::string &from = route[i].worker, &to = route[i + 1].worker;
  if (from == to || !IsGpu(from) || !IsGpu(to)) return false;
  return links == GpuLinks::kNccl || OnOneHost(from, to);
}

std::vector<Op> StreamedOps(const Route& route, const std::string& worker) {
  const std::vector<bool> streamed = StreamedSegments(route, worker);
  std::vector<Op> ops;
  for (size_t i = 0; i < route.size(); ++i) {
    if (streamed[i]) ops.insert(ops.end(), route[i].ops.begin(), route[i].ops.end());
  }
  return ops;
}

}  // namespace dovetail
