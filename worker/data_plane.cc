#include "worker/data_plane.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<DataPlane>> DataPlane::Open(
    std::shared_ptr<transport::Exchange> exchange, const Route& route, const std::string& worker,
    int64_t max_rows, RowLinkOptions links) {
  auto plane = absl::WrapUnique(new DataPlane());
  plane->worker_ = worker;
  plane->exchange_ = std::move(exchange);
  plane->gather_rings_ = std::make_unique<GatherRings>(plane->exchange_.get(), worker);
  DT_ASSIGN_OR_RETURN(plane->doorbell_, plane->exchange_->DoorbellOf(worker));
  plane->segments_.resize(route.size());
  for (size_t i = 0; i < route.size(); ++i) {
    const int member = MemberOf(route[i], worker);
    if (member < 0) continue;
    DT_RETURN_IF_ERROR(plane->OpenSegment(route, i, member));
    if (route[i].members.empty()) continue;
    DT_RETURN_IF_ERROR(
        plane->OpenGather(route[i], member, max_rows, links.timeout, &plane->segments_[i]));
  }
  DT_RETURN_IF_ERROR(plane->OpenLinks(route, links));
  return plane;
}

absl::Status DataPlane::OpenLinks(const Route& route, const RowLinkOptions& options) {
  RowLinks::Senders to;
  RowLinks::Receivers from;
  for (size_t i = 0; i < route.size(); ++i) {
    if (!IsLinkedHop(route, i, options.kind)) continue;
    const std::string &sender = route[i].worker, &receiver = route[i + 1].worker;
    if (sender == worker_) to[receiver] = senders_.at(receiver).get();
    if (receiver != worker_) continue;
    const auto at = std::find(sources_.begin(), sources_.end(), sender);
    from[sender] = receivers_[at - sources_.begin()].get();
  }
  DT_ASSIGN_OR_RETURN(links_, RowLinks::Open(worker_, options, to, from));
  for (size_t i = 0; i < route.size(); ++i) {
    if (route[i].worker == worker_ && IsLinkedHop(route, i, options.kind)) {
      segments_[i].link = links_->To(route[i + 1].worker);
    }
  }
  return absl::OkStatus();
}

RowReceiver* DataPlane::LinkBeside(const transport::TensorReceiver* receiver) const {
  for (size_t i = 0; i < receivers_.size(); ++i) {
    if (receivers_[i].get() == receiver) return links_->From(sources_[i]);
  }
  return nullptr;
}

absl::Status DataPlane::OpenSegment(const Route& route, size_t index, int member) {
  const Segment& segment = route[index];
  if (member > 0) return AddReceiver(segment.worker);
  DT_RETURN_IF_ERROR(AddReceiver(index == 0 ? transport::kCoordinator : route[index - 1].worker));
  Ends& ends = segments_[index];
  for (size_t i = 1; i < segment.members.size(); ++i) {
    DT_ASSIGN_OR_RETURN(transport::TensorSender* const sender, SenderTo(segment.members[i].worker));
    ends.others.push_back(sender);
  }
  const std::string to =
      index + 1 == route.size() ? transport::kCoordinator : route[index + 1].worker;
  if (to == worker_) return absl::OkStatus();
  DT_ASSIGN_OR_RETURN(ends.after, SenderTo(to));
  return absl::OkStatus();
}

absl::Status DataPlane::AddReceiver(const std::string& from) {
  const bool known = std::find(sources_.begin(), sources_.end(), from) != sources_.end();
  if (from == worker_ || known) return absl::OkStatus();
  DT_ASSIGN_OR_RETURN(auto receiver, exchange_->Receiver(from, worker_));
  receivers_.push_back(std::move(receiver));
  sources_.push_back(from);
  return absl::OkStatus();
}

absl::StatusOr<transport::TensorSender*> DataPlane::SenderTo(const std::string& to) {
  std::unique_ptr<transport::TensorSender>& sender = senders_[to];
  if (sender == nullptr) {
    DT_ASSIGN_OR_RETURN(sender, exchange_->Sender(worker_, to));
  }
  return sender.get();
}

absl::Status DataPlane::OpenGather(const Segment& segment, int member, int64_t max_rows,
                                   absl::Duration timeout, Ends* ends) {
  std::vector<std::string> names;
  for (const Member& m : segment.members) names.push_back(m.worker);
  std::unique_ptr<AllGather>& gather = gathers_[names];
  if (gather == nullptr) {
    DT_ASSIGN_OR_RETURN(gather,
                        AllGather::Open(gather_rings_.get(), segment, member, max_rows, timeout));
  }
  ends->gather = gather.get();
  return absl::OkStatus();
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
