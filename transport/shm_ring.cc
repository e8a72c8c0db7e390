#include "transport/shm_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr uint64_t kPrefixBytes = sizeof(uint64_t);
// A long message is published in pieces, so that the receiver copies out while the sender copies
// in.
constexpr uint64_t kPublishBytes = 64 << 10;

bool IsAborted(const RingView& ring) { return ring.aborted->load(std::memory_order_seq_cst) != 0; }

absl::Status AbortedError(const RingView& ring) {
  return absl::AbortedError(absl::StrCat("ring ", ring.name, ": the epoch ended"));
}

absl::Status CorruptError(const RingView& ring, uint64_t tail, uint64_t head) {
  return absl::InternalError(absl::StrCat("ring ", ring.name, " is damaged: tail ", tail, ", head ",
                                          head, ", capacity ", ring.capacity));
}

absl::Status BrokenError(const RingView& ring) {
  return absl::FailedPreconditionError(
      absl::StrCat("ring ", ring.name, ": an earlier call gave up in the middle of a message"));
}

uint64_t BytesOf(absl::Span<const ConstBytes> pieces) {
  uint64_t bytes = 0;
  for (const ConstBytes& piece : pieces) bytes += piece.size;
  return bytes;
}

void CheckView(const RingView& ring) {
  DT_CHECK(ring.control != nullptr && ring.bytes != nullptr && ring.aborted != nullptr);
  DT_CHECK(ring.capacity >= 64 && std::has_single_bit(ring.capacity));
}

}  // namespace

ShmRingSender::ShmRingSender(const RingView& ring)
    : ring_(ring),
      own_bell_(ring.sender_bell),
      peer_bell_(ring.receiver_bell),
      tail_(ring.control->tail.load(std::memory_order_acquire)),
      published_(tail_),
      head_seen_(tail_ - ring.capacity) {  // no room until the head was read and checked
  CheckView(ring_);
}

absl::Status ShmRingSender::CheckUsable() const {
  if (IsAborted(ring_)) return AbortedError(ring_);
  return broken_ ? BrokenError(ring_) : absl::OkStatus();
}

absl::Status ShmRingSender::SendBegin(absl::Span<const ConstBytes> pieces, size_t rest_bytes,
                                      absl::Duration timeout) {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_CHECK_EQ(message_left_, 0u);
  Patience patience(timeout);
  const uint64_t total = BytesOf(pieces) + rest_bytes;
  message_left_ = kPrefixBytes + total;
  // The length is never split, so that a receiver that sees anything sees all of it.
  absl::Status status;
  if (Room() < kPrefixBytes) status = WaitForRoom(kPrefixBytes, &patience);
  if (status.ok()) status = Write(&total, kPrefixBytes, &patience);
  if (status.ok()) status = WritePieces(pieces, &patience);
  broken_ = !status.ok();
  return status;
}

absl::Status ShmRingSender::SendRest(absl::Span<const ConstBytes> pieces, absl::Duration timeout) {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_CHECK_EQ(message_left_, BytesOf(pieces));
  Patience patience(timeout);
  const absl::Status status = WritePieces(pieces, &patience);
  broken_ = !status.ok();
  return status;
}

absl::Status ShmRingSender::WritePieces(absl::Span<const ConstBytes> pieces, Patience* patience) {
  for (const ConstBytes& piece : pieces) {
    DT_RETURN_IF_ERROR(Write(piece.data, piece.size, patience));
  }
  if (tail_ != published_) Publish();
  return absl::OkStatus();
}

absl::Status ShmRingSender::Write(const void* data, uint64_t size, Patience* patience) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  while (size > 0) {
    if (Room() == 0) DT_RETURN_IF_ERROR(WaitForRoom(1, patience));
    const uint64_t at = tail_ & (ring_.capacity - 1);
    const uint64_t count = std::min({size, Room(), ring_.capacity - at, kPublishBytes});
    std::memcpy(ring_.bytes + at, bytes, count);
    tail_ += count;
    bytes += count;
    size -= count;
    message_left_ -= count;
    if (tail_ - published_ >= kPublishBytes) Publish();
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ShmRingSender::Answer(absl::Duration timeout) {
  Patience patience(timeout);
  for (;;) {
    const uint32_t seen = own_bell_.Sequence();
    if (IsAborted(ring_)) return AbortedError(ring_);
    const uint32_t answer = ring_.control->answer.load(std::memory_order_acquire);
    if (answer != 0) return answer;
    if (patience.Exhausted()) {
      return absl::DeadlineExceededError(
          absl::StrCat("ring ", ring_.name, ": the receiver did not answer in time"));
    }
    own_bell_.Wait(seen, kDefaultSpin, patience.UntilNextLook());
  }
}

absl::Status ShmRingSender::RefreshHead() {
  const uint64_t head = ring_.control->head.load(std::memory_order_seq_cst);
  // Beyond what was published, or further behind than the ring is long: not the work of a receiver.
  if (published_ - head > ring_.capacity || tail_ - head > ring_.capacity)
    return CorruptError(ring_, published_, head);
  head_seen_ = head;
  return absl::OkStatus();
}

absl::Status ShmRingSender::WaitForRoom(uint64_t min_room, Patience* patience) {
  // Sleeping until half of the ring is free saves waking for every few bytes.
  const uint64_t wanted = std::max(min_room, std::min(message_left_, ring_.capacity / 2));
  bool announced = false;
  for (;;) {
    const uint32_t seen = own_bell_.Sequence();
    if (IsAborted(ring_)) return AbortedError(ring_);
    DT_RETURN_IF_ERROR(RefreshHead());
    if (Room() >= min_room) break;
    if (tail_ != published_) Publish();
    // Announced before the last look: the receiver frees first and looks for the announcement
    // after.
    ring_.control->room_wanted.store(wanted, std::memory_order_seq_cst);
    announced = true;
    DT_RETURN_IF_ERROR(RefreshHead());
    if (Room() >= wanted) break;
    if (patience->Exhausted()) {
      return absl::DeadlineExceededError(
          absl::StrCat("ring ", ring_.name, ": the receiver made no room in time"));
    }
    own_bell_.Wait(seen, kDefaultSpin, patience->UntilNextLook());
  }
  if (announced) ring_.control->room_wanted.store(0, std::memory_order_relaxed);
  return absl::OkStatus();
}

void ShmRingSender::Publish() {
  published_ = tail_;
  ring_.control->tail.store(tail_, std::memory_order_release);
  peer_bell_.Ring();
}

ShmRingReceiver::ShmRingReceiver(const RingView& ring)
    : ring_(ring),
      own_bell_(ring.receiver_bell),
      peer_bell_(ring.sender_bell),
      head_(ring.control->head.load(std::memory_order_acquire)),
      published_(head_),
      tail_seen_(head_) {
  CheckView(ring_);
}

bool ShmRingReceiver::Ready() const {
  if (in_message_ || IsAborted(ring_)) return true;
  return ring_.control->tail.load(std::memory_order_acquire) - head_ >= kPrefixBytes;
}

void ShmRingReceiver::SetAnswer(uint32_t answer) {
  DT_CHECK(answer != 0);
  ring_.control->answer.store(answer, std::memory_order_release);
  peer_bell_.Ring();
}

absl::Status ShmRingReceiver::CheckUsable() const {
  if (IsAborted(ring_)) return AbortedError(ring_);
  return broken_ ? BrokenError(ring_) : absl::OkStatus();
}

absl::StatusOr<size_t> ShmRingReceiver::Begin(absl::Duration timeout) {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_CHECK(!in_message_);
  Patience patience(timeout);
  DT_RETURN_IF_ERROR(WaitForBytes(kPrefixBytes, &patience));
  uint64_t size = 0;
  DT_RETURN_IF_ERROR(Consume(reinterpret_cast<uint8_t*>(&size), kPrefixBytes, &patience));
  message_left_ = size;
  in_message_ = true;
  return size;
}

absl::Status ShmRingReceiver::Read(void* data, size_t size, absl::Duration timeout) {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_CHECK(in_message_);
  if (size > message_left_) {
    return absl::InvalidArgumentError(absl::StrCat("ring ", ring_.name, ": reading ", size,
                                                   " bytes where the message has ", message_left_,
                                                   " left"));
  }
  if (size == 0) return absl::OkStatus();
  Patience patience(timeout);
  const absl::Status status = Consume(static_cast<uint8_t*>(data), size, &patience);
  broken_ = !status.ok();
  return status;
}

absl::Status ShmRingReceiver::End(absl::Duration timeout) {
  DT_RETURN_IF_ERROR(CheckUsable());
  DT_CHECK(in_message_);
  Patience patience(timeout);
  const absl::Status status = Consume(nullptr, message_left_, &patience);
  broken_ = !status.ok();
  if (status.ok()) {
    in_message_ = false;
    if (head_ != published_) PublishHead();
  }
  return status;
}

absl::Status ShmRingReceiver::Consume(uint8_t* data, uint64_t size, Patience* patience) {
  while (size > 0) {
    if (tail_seen_ == head_) DT_RETURN_IF_ERROR(WaitForBytes(1, patience));
    const uint64_t at = head_ & (ring_.capacity - 1);
    const uint64_t count = std::min({size, tail_seen_ - head_, ring_.capacity - at});
    if (data != nullptr) {
      std::memcpy(data, ring_.bytes + at, count);
      data += count;
    }
    head_ += count;
    size -= count;
    if (in_message_) message_left_ -= count;
    // A sender in the middle of a long message goes on while this one is still copied out.
    if (head_ - published_ >= ring_.capacity / 4) PublishHead();
  }
  return absl::OkStatus();
}

absl::Status ShmRingReceiver::WaitForBytes(uint64_t min_bytes, Patience* patience) {
  for (;;) {
    const uint32_t seen = own_bell_.Sequence();
    if (IsAborted(ring_)) return AbortedError(ring_);
    const uint64_t tail = ring_.control->tail.load(std::memory_order_acquire);
    if (tail - head_ > ring_.capacity) return CorruptError(ring_, tail, head_);
    tail_seen_ = tail;
    if (tail_seen_ - head_ >= min_bytes) return absl::OkStatus();
    if (head_ != published_) PublishHead();
    if (patience->Exhausted()) {
      return absl::DeadlineExceededError(
          absl::StrCat("ring ", ring_.name, ": nothing arrived in time"));
    }
    own_bell_.Wait(seen, kDefaultSpin, patience->UntilNextLook());
  }
}

void ShmRingReceiver::PublishHead() {
  published_ = head_;
  ring_.control->head.store(head_, std::memory_order_seq_cst);
  const uint64_t wanted = ring_.control->room_wanted.load(std::memory_order_seq_cst);
  if (wanted == 0) return;
  const uint64_t tail = ring_.control->tail.load(std::memory_order_acquire);
  if (ring_.capacity - (tail - head_) >= wanted) peer_bell_.Ring();
}

}  // namespace dovetail::transport
