#include "coordinator/placement/expert_parts.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace dovetail::coordinator {
namespace {

// Ops [begin, end) are ranges of experts of one layer.
void OrderRanges(absl::Span<const std::string> workers, size_t begin, size_t end,
                 std::vector<size_t>* order) {
  const std::string* before = begin > 0 ? &workers[begin - 1] : nullptr;
  const std::string* after = end < workers.size() ? &workers[end] : nullptr;
  // Where a worker's ranges come: by its first range, but for the neighbours.
  const auto place = [&](size_t i) -> size_t {
    if (before != nullptr && workers[i] == *before) return 0;
    if (after != nullptr && workers[i] == *after) return end + 1;
    const auto first = std::find(workers.begin() + begin, workers.begin() + end, workers[i]);
    return 1 + static_cast<size_t>(first - workers.begin());
  };
  std::stable_sort(order->begin() + static_cast<ptrdiff_t>(begin),
                   order->begin() + static_cast<ptrdiff_t>(end),
                   [&](size_t a, size_t b) { return place(a) < place(b); });
}

}  // namespace

std::vector<Op> DivideExperts(absl::Span<const Op> ops,
                              const std::function<int(const Op&)>& owner) {
  std::vector<Op> divided;
  for (const Op& op : ops) {
    if (op.kind != OpKind::kExperts) {
      divided.push_back(op);
      continue;
    }
    int last_owner = 0;
    for (int32_t e = op.expert_begin; e < op.expert_end; ++e) {
      const Op one = {OpKind::kExperts, op.layer, e, e + 1};
      const int own = owner(one);
      if (e > op.expert_begin && own == last_owner) {
        divided.back().expert_end = e + 1;
      } else {
        divided.push_back(one);
      }
      last_owner = own;
    }
  }
  return divided;
}

std::vector<size_t> OrderForFewHops(absl::Span<const Op> ops,
                                    absl::Span<const std::string> workers) {
  DT_CHECK_EQ(ops.size(), workers.size());
  std::vector<size_t> order(ops.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t begin = 0; begin < ops.size();) {
    size_t end = begin + 1;
    if (ops[begin].kind == OpKind::kExperts) {
      while (end < ops.size() && ops[end].kind == OpKind::kExperts &&
             ops[end].layer == ops[begin].layer) {
        ++end;
      }
      OrderRanges(workers, begin, end, &order);
    }
    begin = end;
  }
  return order;
}

}  // namespace dovetail::coordinator
