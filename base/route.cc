#include "base/route.h"

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

}  // namespace dovetail
