#include "worker/data_plane.h"

#include <map>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Open(
    std::shared_ptr<transport::Exchange> exchange, const Route& route, const std::string& worker) {
  auto plane = absl::WrapUnique(new DataPlane());
  plane->exchange_ = std::move(exchange);
  DT_ASSIGN_OR_RETURN(plane->doorbell_, plane->exchange_->DoorbellOf(worker));

  std::set<std::string> sources;
  std::map<std::string, transport::TensorSender*> senders;
  plane->after_.resize(route.size(), nullptr);
  for (size_t i = 0; i < route.size(); ++i) {
    if (route[i].worker != worker) continue;
    const std::string from = i == 0 ? transport::kCoordinator : route[i - 1].worker;
    const std::string to = i + 1 == route.size() ? transport::kCoordinator : route[i + 1].worker;
    if (from != worker && sources.insert(from).second) {
      DT_ASSIGN_OR_RETURN(auto receiver, plane->exchange_->Receiver(from, worker));
      plane->receivers_.push_back(std::move(receiver));
    }
    if (to == worker) continue;
    if (senders.find(to) == senders.end()) {
      DT_ASSIGN_OR_RETURN(auto sender, plane->exchange_->Sender(worker, to));
      senders[to] = sender.get();
      plane->senders_.push_back(std::move(sender));
    }
    plane->after_[i] = senders[to];
  }
  return plane;
}

transport::TensorReceiver* DataPlane::NextReady() {
  for (size_t i = 0; i < receivers_.size(); ++i) {
    const size_t idx = (next_receiver_ + i) % receivers_.size();
    if (!receivers_[idx]->Ready()) continue;
    next_receiver_ = idx + 1;
    return receivers_[idx].get();
  }
  return nullptr;
}

}  // namespace dovetail::worker
