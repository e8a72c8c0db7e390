// MemorySender and MemoryReceiver: a channel over one message in a byte vector, for frame tests and
// fuzzing. What a sender wrote can be changed before a receiver reads it. Not thread-safe.
#ifndef DOVETAIL_TESTS_UNIT_TRANSPORT_MEMORY_CHANNEL_H_
#define DOVETAIL_TESTS_UNIT_TRANSPORT_MEMORY_CHANNEL_H_

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "transport/tensor_channel.h"

namespace dovetail::testing {

class MemorySender final : public transport::TensorSender {
 public:
  absl::Status SendBegin(absl::Span<const transport::ConstBytes> pieces, size_t /*rest_bytes*/,
                         absl::Duration timeout) override {
    message_.clear();
    return SendRest(pieces, timeout);
  }
  absl::Status SendRest(absl::Span<const transport::ConstBytes> pieces, absl::Duration) override {
    for (const transport::ConstBytes& piece : pieces) {
      if (piece.size == 0) continue;
      const auto* bytes = static_cast<const uint8_t*>(piece.data);
      message_.insert(message_.end(), bytes, bytes + piece.size);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<uint32_t> Answer(absl::Duration) override { return 0; }
  const std::vector<uint8_t>& message() const { return message_; }

 private:
  std::vector<uint8_t> message_;
};

class MemoryReceiver final : public transport::TensorReceiver {
 public:
  explicit MemoryReceiver(std::vector<uint8_t> message) : message_(std::move(message)) {}
  bool Ready() const override { return !ended_; }
  absl::StatusOr<size_t> Begin(absl::Duration) override { return message_.size(); }
  absl::Status Read(void* data, size_t size, absl::Duration) override {
    if (size > message_.size() - at_) return absl::InvalidArgumentError("beyond the message");
    if (size > 0) std::memcpy(data, message_.data() + at_, size);
    at_ += size;
    return absl::OkStatus();
  }
  absl::Status End(absl::Duration) override {
    ended_ = true;
    return absl::OkStatus();
  }
  void SetAnswer(uint32_t) override {}
  bool ended() const { return ended_; }

 private:
  std::vector<uint8_t> message_;
  size_t at_ = 0;
  bool ended_ = false;
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_UNIT_TRANSPORT_MEMORY_CHANNEL_H_
