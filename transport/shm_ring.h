// ShmRing: a byte ring in shared memory between one sender and one receiver.
//
// A message is a u64 length and that many bytes, without padding; it may be longer than the ring,
// in which case the two ends work on it at the same time. `head` and `tail` count bytes since the
// start and never wrap in practice (2^64); a position in the ring is the count modulo the capacity,
// a power of two.
//
// Waiting: each end sleeps on the doorbell of its own process. The sender rings the receiver's on
// every publication; the receiver rings the sender's when `room_wanted` bytes have become free.
// Each end keeps its own counter privately and only publishes it, so that a peer that writes
// nonsense into shared memory can make messages wrong but never an access outside of the ring.
#ifndef DOVETAIL_TRANSPORT_SHM_RING_H_
#define DOVETAIL_TRANSPORT_SHM_RING_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "base/patience.h"
#include "transport/shm_doorbell.h"
#include "transport/tensor_channel.h"

namespace dovetail::transport {

// Each word has its own pair of cache lines: prefetchers fetch pairs. Zero is a valid initial
// state; the bytes of the ring follow.
struct RingControl {
  alignas(128) std::atomic<uint64_t> tail{0};  // bytes published by the sender
  alignas(128) std::atomic<uint64_t> head{0};  // bytes freed by the receiver
  std::atomic<uint32_t> answer{0};             // of the receiver, once; 0: none yet
  alignas(128) std::atomic<uint64_t> room_wanted{
      0};  // > 0: the sender sleeps until so many are free
};
static_assert(sizeof(RingControl) == 384);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// One ring and who is to be woken, all borrowed from the exchange.
struct RingView {
  RingControl* control = nullptr;
  uint8_t* bytes = nullptr;
  uint64_t capacity = 0;  // a power of two, at least 64
  DoorbellState* sender_bell = nullptr;
  DoorbellState* receiver_bell = nullptr;
  const std::atomic<uint32_t>* aborted = nullptr;
  std::string name;  // "cpu:0 -> cpu:1", for messages
};

class ShmRingSender final : public TensorSender {
 public:
  explicit ShmRingSender(const RingView& ring);
  absl::Status SendBegin(absl::Span<const ConstBytes> pieces, size_t rest_bytes,
                         absl::Duration timeout) override;
  absl::Status SendRest(absl::Span<const ConstBytes> pieces, absl::Duration timeout) override;
  absl::StatusOr<uint32_t> Answer(absl::Duration timeout) override;

 private:
  uint64_t Room() const { return ring_.capacity - (tail_ - head_seen_); }
  absl::Status CheckUsable() const;
  // Writes all of them and publishes them.
  absl::Status WritePieces(absl::Span<const ConstBytes> pieces, Patience* patience);
  absl::Status Write(const void* data, uint64_t size, Patience* patience);
  // Returns with at least `min_room` free bytes.
  absl::Status WaitForRoom(uint64_t min_room, Patience* patience);
  absl::Status RefreshHead();
  void Publish();

  RingView ring_;
  ShmDoorbell own_bell_;
  ShmDoorbell peer_bell_;
  uint64_t tail_;  // written, perhaps not yet published
  uint64_t published_;
  uint64_t head_seen_;
  uint64_t message_left_ = 0;  // of the begun one, with its length
  bool broken_ = false;        // a message stopped in its middle
};

class ShmRingReceiver final : public TensorReceiver {
 public:
  explicit ShmRingReceiver(const RingView& ring);
  bool Ready() const override;
  absl::StatusOr<size_t> Begin(absl::Duration timeout) override;
  absl::Status Read(void* data, size_t size, absl::Duration timeout) override;
  absl::Status End(absl::Duration timeout) override;
  void SetAnswer(uint32_t answer) override;

 private:
  // Returns with at least `min_bytes` published bytes that were not consumed yet.
  absl::Status WaitForBytes(uint64_t min_bytes, Patience* patience);
  // Takes `size` bytes of the ring; `data` may be null to skip them.
  absl::Status Consume(uint8_t* data, uint64_t size, Patience* patience);
  absl::Status CheckUsable() const;
  void PublishHead();

  RingView ring_;
  ShmDoorbell own_bell_;
  ShmDoorbell peer_bell_;
  uint64_t head_;  // consumed, perhaps not yet published
  uint64_t published_;
  uint64_t tail_seen_;
  uint64_t message_left_ = 0;
  bool in_message_ = false;
  bool broken_ = false;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_SHM_RING_H_
