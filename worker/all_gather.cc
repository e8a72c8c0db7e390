#include "worker/all_gather.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::worker {
namespace {

int64_t BytesOfRow(absl::Span<const GatheredBuffer> buffers, const Range& columns) {
  int64_t bytes = 0;
  for (const GatheredBuffer& buffer : buffers) bytes += buffer.BytesOf(columns).size();
  return bytes;
}

}  // namespace

absl::StatusOr<const GatherRings::Ends*> GatherRings::To(const std::string& other) {
  Ends& ends = ends_[other];
  if (ends.sender == nullptr) {
    constexpr auto kGather = transport::EdgeKind::kGather;
    DT_ASSIGN_OR_RETURN(ends.sender, exchange_->Sender(worker_, other, kGather));
    DT_ASSIGN_OR_RETURN(ends.receiver, exchange_->Receiver(other, worker_, kGather));
  }
  return &ends;
}

absl::StatusOr<std::unique_ptr<AllGather>> AllGather::Open(GatherRings* rings,
                                                           const Segment& segment, int member,
                                                           int64_t max_rows,
                                                           absl::Duration timeout) {
  auto gather = absl::WrapUnique(new AllGather());
  gather->member_ = member;
  gather->message_room_ = rings->message_room();
  gather->timeout_ = timeout;
  for (int i = 0; i < static_cast<int>(segment.members.size()); ++i) {
    if (i == member) continue;
    const std::string& name = segment.members[i].worker;
    DT_ASSIGN_OR_RETURN(const GatherRings::Ends* ends, rings->To(name));
    gather->peers_.push_back({i, name, ends});
  }
  gather->pieces_.reserve(static_cast<size_t>(1 + kMaxGatheredBuffers * max_rows));
  return gather;
}

void AllGather::BeginStep(uint64_t step) {
  step_ = step;
  number_ = 0;
}

absl::Status AllGather::Run(absl::Span<const GatheredBuffer> buffers, int64_t rows,
                            absl::Span<const Range> columns, bool at_first, bool* finite) {
  ++number_;
  const bool own_finite = *finite;
  uint64_t longest = 0;
  for (const Range& part : columns) {
    const int64_t bytes = static_cast<int64_t>(sizeof(Header)) + rows * BytesOfRow(buffers, part);
    longest = std::max(longest, static_cast<uint64_t>(bytes) + sizeof(uint64_t));
  }
  const bool sends = !at_first || member_ > 0, receives = !at_first || member_ == 0;
  const auto send = [&](const Peer& peer) {
    if (!sends || (at_first && peer.member != 0)) return absl::OkStatus();
    return Send(peer, buffers, rows, columns[member_], own_finite);
  };
  const auto receive = [&](const Peer& peer) {
    if (!receives) return absl::OkStatus();
    return Receive(peer, buffers, rows, columns[peer.member], finite);
  };
  if (longest <= message_room_) {
    // A peer has at most this message and the next one on the way here: nobody waits for room.
    for (const Peer& peer : peers_) DT_RETURN_IF_ERROR(send(peer));
    for (const Peer& peer : peers_) DT_RETURN_IF_ERROR(receive(peer));
    return absl::OkStatus();
  }
  // One sends while the other receives, pair by pair in one order, so that nobody waits in a
  // circle.
  for (const Peer& peer : peers_) {
    const bool first = member_ < peer.member;
    DT_RETURN_IF_ERROR(first ? send(peer) : receive(peer));
    DT_RETURN_IF_ERROR(first ? receive(peer) : send(peer));
  }
  return absl::OkStatus();
}

absl::Status AllGather::Send(const Peer& peer, absl::Span<const GatheredBuffer> buffers,
                             int64_t rows, const Range& columns, bool finite) {
  const Header header = {step_, number_, finite ? 1u : 0u};
  pieces_.clear();
  pieces_.push_back({&header, sizeof(header)});
  for (const GatheredBuffer& buffer : buffers) {
    const Range bytes = buffer.BytesOf(columns);
    for (int64_t row = 0; row < rows; ++row) {
      pieces_.push_back(
          {buffer.data + row * buffer.row_bytes + bytes.begin, static_cast<size_t>(bytes.size())});
    }
  }
  return peer.ends->sender->Send(pieces_, timeout_);
}

absl::Status AllGather::Receive(const Peer& peer, absl::Span<const GatheredBuffer> buffers,
                                int64_t rows, const Range& columns, bool* finite) {
  DT_ASSIGN_OR_RETURN(const size_t bytes, peer.ends->receiver->Begin(timeout_));
  DT_RETURN_IF_ERROR(Read(peer, bytes, buffers, rows, columns, finite));
  return peer.ends->receiver->End(timeout_);
}

absl::Status AllGather::Read(const Peer& peer, size_t bytes,
                             absl::Span<const GatheredBuffer> buffers, int64_t rows,
                             const Range& columns, bool* finite) {
  transport::TensorReceiver& receiver = *peer.ends->receiver;
  Header header = {};
  if (bytes >= sizeof(header)) {
    DT_RETURN_IF_ERROR(receiver.Read(&header, sizeof(header), timeout_));
  }
  const int64_t expected =
      static_cast<int64_t>(sizeof(header)) + rows * BytesOfRow(buffers, columns);
  if (header.step != step_ || header.number != number_ || static_cast<int64_t>(bytes) != expected) {
    return absl::InternalError(absl::StrCat("rows of ", peer.name, ": ", bytes, " bytes of step ",
                                            header.step, ", gather ", header.number, "; expected ",
                                            expected, " of step ", step_, ", gather ", number_));
  }
  if (header.finite == 0) *finite = false;
  for (const GatheredBuffer& buffer : buffers) {
    const Range part = buffer.BytesOf(columns);
    for (int64_t row = 0; row < rows; ++row) {
      DT_RETURN_IF_ERROR(receiver.Read(buffer.data + row * buffer.row_bytes + part.begin,
                                       static_cast<size_t>(part.size()), timeout_));
    }
  }
  return absl::OkStatus();
}

}  // namespace dovetail::worker
