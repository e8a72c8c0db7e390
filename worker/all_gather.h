// AllGather: the members of a segment bring together the columns that each of them has made.
//
// All members run the same layers on the same step, so they come to the same gathers in the same
// order; each message says which one it belongs to. A member sends its own columns to the others
// and writes theirs where they belong, in place: nothing is summed, no bit changes. Messages go
// through rings of their own (EdgeKind::kGather), so waits are those of a ring: a short spin, then
// a futex, ended by the epoch's end or after a timeout.
//
// Used by the executor's thread. A gather allocates nothing.
#ifndef DOVETAIL_WORKER_ALL_GATHER_H_
#define DOVETAIL_WORKER_ALL_GATHER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/range.h"
#include "base/route.h"
#include "transport/exchange.h"
#include "transport/tensor_channel.h"

namespace dovetail::worker {

// Rows of one buffer, `row_bytes` apart, in which every `group_columns` columns from `first_column`
// on have `group_bytes`.
struct GatheredBuffer {
  uint8_t* data = nullptr;
  int64_t row_bytes = 0;
  int64_t group_columns = 1;
  int64_t group_bytes = 0;
  int64_t first_column = 0;

  Range BytesOf(const Range& columns) const {
    return {(columns.begin - first_column) / group_columns * group_bytes,
            (columns.end - first_column) / group_columns * group_bytes};
  }
};
// Of one gather: f32, or the three parts of a quantised form.
inline constexpr int kMaxGatheredBuffers = 3;

// This worker's ends of the rings to and from the others, by their names: one of each, whatever
// segments they share.
class GatherRings {
 public:
  struct Ends {
    std::unique_ptr<transport::TensorSender> sender;
    std::unique_ptr<transport::TensorReceiver> receiver;
  };
  GatherRings(transport::Exchange* exchange, std::string worker)
      : exchange_(exchange), worker_(std::move(worker)) {}
  absl::StatusOr<const Ends*> To(const std::string& other);
  // A message that is no longer finds room in a ring beside another one of its length.
  uint64_t message_room() const { return exchange_->ring_bytes() / 2; }

 private:
  transport::Exchange* exchange_;
  const std::string worker_;
  std::map<std::string, Ends> ends_;
};

class AllGather {
 public:
  // For a segment with members, of which `member` is this worker. `max_rows`: of one gather, which
  // has at most kMaxGatheredBuffers.
  static absl::StatusOr<std::unique_ptr<AllGather>> Open(GatherRings* rings, const Segment& segment,
                                                         int member, int64_t max_rows,
                                                         absl::Duration timeout);

  // Before the segment's first gather.
  void BeginStep(uint64_t step);

  // Afterwards rows [0, rows) of every buffer have the columns of all members, which are
  // `columns`; or, `at_first`, with the first member alone. *finite says whether all of what was
  // made so far is finite: by this worker before, by all of them after.
  absl::Status Run(absl::Span<const GatheredBuffer> buffers, int64_t rows,
                   absl::Span<const Range> columns, bool at_first, bool* finite);

 private:
  // What a message begins with.
  struct Header {
    uint64_t step;
    uint32_t number;  // of the gather in its segment
    uint32_t finite;
  };
  struct Peer {
    int member = 0;
    std::string name;
    const GatherRings::Ends* ends = nullptr;
  };
  AllGather() = default;
  absl::Status Send(const Peer& peer, absl::Span<const GatheredBuffer> buffers, int64_t rows,
                    const Range& columns, bool finite);
  absl::Status Receive(const Peer& peer, absl::Span<const GatheredBuffer> buffers, int64_t rows,
                       const Range& columns, bool* finite);
  absl::Status Read(const Peer& peer, size_t bytes, absl::Span<const GatheredBuffer> buffers,
                    int64_t rows, const Range& columns, bool* finite);

  int member_ = 0;
  uint64_t message_room_ = 0;
  absl::Duration timeout_;
  std::vector<Peer> peers_;  // in the order of the members
  std::vector<transport::ConstBytes> pieces_;
  uint64_t step_ = 0;
  uint32_t number_ = 0;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_ALL_GATHER_H_
