// DataPlane: this worker's ends of one epoch's exchange: its doorbell, its in-edges, the sender
// that each of its segments goes on to, and what it shares the rows of a segment through.
//
// Opened and used by the executor's thread; all objects live as long as the exchange that it holds.
#ifndef DOVETAIL_WORKER_DATA_PLANE_H_
#define DOVETAIL_WORKER_DATA_PLANE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/route.h"
#include "transport/exchange.h"
#include "transport/tensor_channel.h"
#include "worker/all_gather.h"
#include "worker/row_links.h"

namespace dovetail::worker {

class DataPlane {
 public:
  // `max_rows`: of one gather, which waits as long as links do.
  static absl::StatusOr<std::unique_ptr<DataPlane>> Open(
      std::shared_ptr<transport::Exchange> exchange, const Route& route, const std::string& worker,
      int64_t max_rows, RowLinkOptions links);

  transport::Exchange& exchange() { return *exchange_; }
  uint64_t epoch() const { return exchange_->epoch(); }
  transport::Doorbell& doorbell() { return *doorbell_; }

  // An in-edge on which a message waits, each in turn; nullptr if there is none.
  transport::TensorReceiver* NextReady();
  // Where a step goes after `segment`: the next worker, or the coordinator after the last one.
  // nullptr: the next segment is this worker's own, or it is for another member to send it.
  transport::TensorSender* SenderAfter(uint32_t segment) { return segments_[segment].after; }
  // The link of that hop, and the one beside a ring that steps come by; nullptr: there is none.
  RowSender* LinkAfter(uint32_t segment) const { return segments_[segment].link; }
  RowReceiver* LinkBeside(const transport::TensorReceiver* receiver) const;
  // The other members of a segment to whom this worker, the first, passes a step on.
  absl::Span<transport::TensorSender* const> MembersOf(uint32_t segment) {
    return segments_[segment].others;
  }
  // nullptr: this worker computes the segment alone.
  AllGather* GatherOf(uint32_t segment) { return segments_[segment].gather; }

 private:
  struct Ends {
    transport::TensorSender* after = nullptr;
    RowSender* link = nullptr;
    std::vector<transport::TensorSender*> others;
    AllGather* gather = nullptr;
  };
  DataPlane() = default;
  absl::Status AddReceiver(const std::string& from);
  absl::StatusOr<transport::TensorSender*> SenderTo(const std::string& to);
  absl::Status OpenSegment(const Route& route, size_t index, int member);
  absl::Status OpenLinks(const Route& route, const RowLinkOptions& options);
  absl::Status OpenGather(const Segment& segment, int member, int64_t max_rows,
                          absl::Duration timeout, Ends* ends);

  std::string worker_;
  std::shared_ptr<transport::Exchange> exchange_;  // outlives what borrows from it
  std::unique_ptr<transport::Doorbell> doorbell_;
  std::vector<std::string> sources_;  // of receivers_
  std::vector<std::unique_ptr<transport::TensorReceiver>> receivers_;
  std::map<std::string, std::unique_ptr<transport::TensorSender>> senders_;
  std::unique_ptr<GatherRings> gather_rings_;
  std::map<std::vector<std::string>, std::unique_ptr<AllGather>> gathers_;  // by members
  std::vector<Ends> segments_;
  std::unique_ptr<RowLinks> links_;
  size_t next_receiver_ = 0;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DATA_PLANE_H_
