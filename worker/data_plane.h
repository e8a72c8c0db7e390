// DataPlane: this worker's ends of one epoch's exchange: its doorbell, its in-edges, and the sender
// that each of its segments goes on to.
//
// Opened and used by the executor's thread; all objects live as long as the exchange that it holds.
#ifndef DOVETAIL_WORKER_DATA_PLANE_H_
#define DOVETAIL_WORKER_DATA_PLANE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/route.h"
#include "transport/exchange.h"
#include "transport/tensor_channel.h"

namespace dovetail::worker {

class DataPlane {
 public:
  static absl::StatusOr<std::unique_ptr<DataPlane>> Open(
      std::shared_ptr<transport::Exchange> exchange, const Route& route, const std::string& worker);

  transport::Exchange& exchange() { return *exchange_; }
  uint64_t epoch() const { return exchange_->epoch(); }
  transport::Doorbell& doorbell() { return *doorbell_; }

  // An in-edge on which a message waits, each in turn; nullptr if there is none.
  transport::TensorReceiver* NextReady();
  // Where a step goes after `segment`: the next worker, or the coordinator after the last one.
  // nullptr: the next segment is this worker's own.
  transport::TensorSender* SenderAfter(uint32_t segment) { return after_[segment]; }

 private:
  DataPlane() = default;

  std::shared_ptr<transport::Exchange> exchange_;  // outlives what borrows from it
  std::unique_ptr<transport::Doorbell> doorbell_;
  std::vector<std::unique_ptr<transport::TensorReceiver>> receivers_;
  std::vector<std::unique_ptr<transport::TensorSender>> senders_;
  std::vector<transport::TensorSender*> after_;  // by segment
  size_t next_receiver_ = 0;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DATA_PLANE_H_
