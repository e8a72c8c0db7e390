#include "coordinator/fair_queue.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/check.h"

namespace dovetail::coordinator {
namespace {

constexpr double kNobody = std::numeric_limits<double>::infinity();

}  // namespace

void FairQueue::Enter(Sequence* sequence) {
  DT_CHECK(sequence->tenant == nullptr);
  const double least = LeastService();
  std::unique_ptr<Tenant>& tenant = tenants_[sequence->tenant_name];
  if (tenant == nullptr) tenant = std::make_unique<Tenant>();
  if (tenant->num_sequences == 0 && least != kNobody) {
    tenant->service = std::max(tenant->service, least);
  }
  ++tenant->num_sequences;
  sequence->tenant = tenant.get();
}

void FairQueue::Leave(Sequence* sequence) {
  DT_CHECK(sequence->tenant != nullptr && sequence->tenant->num_sequences > 0);
  --sequence->tenant->num_sequences;
  sequence->tenant = nullptr;
  ForgetTenants();
}

double FairQueue::LeastService() const {
  double least = kNobody;
  for (const auto& [name, tenant] : tenants_) {
    if (tenant->num_sequences > 0) least = std::min(least, tenant->service);
  }
  return least;
}

// Whoever is gone and not ahead of those who are there would start like a new one.
void FairQueue::ForgetTenants() {
  const double least = LeastService();
  absl::erase_if(tenants_, [least](const auto& entry) {
    return entry.second->num_sequences == 0 && (least == kNobody || entry.second->service <= least);
  });
}

void FairQueue::Remove(Sequence* sequence) {
  auto it = std::find(waiting_.begin(), waiting_.end(), sequence);
  DT_CHECK(it != waiting_.end());
  *it = waiting_.back();
  waiting_.pop_back();
}

Sequence* FairQueue::Next(absl::Time now, absl::FunctionRef<bool(const Sequence&)> may_go) const {
  int most_urgent = std::numeric_limits<int>::max();
  for (const Sequence* sequence : waiting_) {
    most_urgent = std::min(most_urgent, sequence->priority);
  }
  const auto turn = [&](const Sequence& s) {
    const double classes = std::max(0.0, absl::FDivDuration(now - s.arrival, aging_));
    const double aged = static_cast<double>(s.priority) - std::min(classes, 1e6);
    const int priority = std::max(most_urgent, static_cast<int>(std::ceil(aged)));
    return std::make_tuple(priority, s.num_preemptions == 0, s.tenant->service, s.id);
  };
  Sequence* next = nullptr;
  for (Sequence* sequence : waiting_) {
    if (next != nullptr && turn(*sequence) >= turn(*next)) continue;
    if (may_go(*sequence)) next = sequence;
  }
  return next;
}

}  // namespace dovetail::coordinator
