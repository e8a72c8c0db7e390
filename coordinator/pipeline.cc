#include "coordinator/pipeline.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

// A worker that does not take or finish a message for this long is lost.
constexpr absl::Duration kMessageTimeout = absl::Seconds(30);
// Longer than a hop, shorter than a step: a token that comes at once is taken without a system
// call.
constexpr absl::Duration kSpin = absl::Microseconds(20);

class ExchangePipeline : public Pipeline {
 public:
  ExchangePipeline(std::shared_ptr<transport::Exchange> exchange,
                   std::unique_ptr<transport::TensorSender> sender,
                   std::unique_ptr<transport::TensorReceiver> receiver,
                   std::unique_ptr<transport::Doorbell> doorbell, std::vector<int> segment_workers,
                   const StepShape& shape, int vocab_size, int hidden_size)
      : exchange_(std::move(exchange)),
        sender_(std::move(sender)),
        receiver_(std::move(receiver)),
        doorbell_(std::move(doorbell)),
        segment_workers_(std::move(segment_workers)),
        shape_(shape),
        vocab_size_(vocab_size),
        hidden_size_(hidden_size),
        seen_(doorbell_->Sequence()) {}

  uint64_t epoch() const override { return exchange_->epoch(); }
  absl::Span<const int> segment_workers() const override { return segment_workers_; }

  absl::Status Send(const transport::StepFrame& frame) override {
    return transport::SendStep(*sender_, frame, {}, kMessageTimeout);
  }

  absl::StatusOr<bool> Poll(transport::StepOutput* output) override {
    if (exchange_->aborted()) return absl::AbortedError("the connection to the workers was ended");
    if (!receiver_->Ready()) return false;
    DT_RETURN_IF_ERROR(transport::ReceiveOutput(*receiver_, shape_, exchange_->epoch(), vocab_size_,
                                                hidden_size_, output, kMessageTimeout));
    return true;
  }

  void Wait(absl::Duration timeout) override {
    doorbell_->Wait(seen_, kSpin, timeout);
    // Read before the caller looks for work, so that a ring that comes after is not slept through.
    seen_ = doorbell_->Sequence();
  }

  void Wake() override { doorbell_->Ring(); }

 private:
  const std::shared_ptr<transport::Exchange> exchange_;
  const std::unique_ptr<transport::TensorSender> sender_;
  const std::unique_ptr<transport::TensorReceiver> receiver_;
  const std::unique_ptr<transport::Doorbell> doorbell_;
  const std::vector<int> segment_workers_;
  const StepShape shape_;
  const int vocab_size_;
  const int hidden_size_;
  uint32_t seen_;
};

std::vector<int> NumberWorkers(const Route& route) {
  std::vector<std::string> names;
  std::vector<int> numbers;
  for (const Segment& segment : route) {
    const auto it = std::find(names.begin(), names.end(), segment.worker);
    numbers.push_back(static_cast<int>(it - names.begin()));
    if (it == names.end()) names.push_back(segment.worker);
  }
  return numbers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> MakeExchangePipeline(
    std::shared_ptr<transport::Exchange> exchange, const Route& route, const StepShape& shape,
    int vocab_size, int hidden_size) {
  DT_CHECK(exchange != nullptr && !route.empty());
  DT_ASSIGN_OR_RETURN(auto sender, exchange->Sender(transport::kCoordinator, route.front().worker));
  DT_ASSIGN_OR_RETURN(auto receiver,
                      exchange->Receiver(route.back().worker, transport::kCoordinator));
  DT_ASSIGN_OR_RETURN(auto doorbell, exchange->DoorbellOf(transport::kCoordinator));
  return std::make_unique<ExchangePipeline>(std::move(exchange), std::move(sender),
                                            std::move(receiver), std::move(doorbell),
                                            NumberWorkers(route), shape, vocab_size, hidden_size);
}

}  // namespace dovetail::coordinator
