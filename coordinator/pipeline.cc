#include "coordinator/pipeline.h"

#include <algorithm>
#include <map>
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

// Which workers count as one: those that share rows are busy at the same time.
class Teams {
 public:
  explicit Teams(const Route& route) {
    for (const Segment& segment : route) {
      for (const Member& member : segment.members) Join(segment.worker, member.worker);
    }
  }
  std::string Of(const std::string& worker) const {
    const auto it = team_.find(worker);
    return it == team_.end() ? worker : it->second;
  }

 private:
  void Join(const std::string& a, const std::string& b) {
    const std::string into = Of(a), from = Of(b);
    team_[a] = team_[b] = into;
    for (auto& [worker, team] : team_) {
      if (team == from) team = into;
    }
  }
  std::map<std::string, std::string> team_;  // by worker; a team has the name of one of them
};

std::vector<int> NumberWorkers(const Route& route) {
  const Teams teams(route);
  std::vector<std::string> names;
  std::vector<int> numbers;
  for (const Segment& segment : route) {
    const auto it = std::find(names.begin(), names.end(), teams.Of(segment.worker));
    numbers.push_back(static_cast<int>(it - names.begin()));
    if (it == names.end()) names.push_back(teams.Of(segment.worker));
  }
  return numbers;
}

// Two groups that share rows and have a worker in common, but not the same workers in the same
// order. The first of each decides which step comes next, so with two steps on the way each group
// could wait for a worker that waits in the other one.
bool GroupsOverlap(const Route& route) {
  std::vector<std::string> names;
  std::vector<std::vector<std::string>> groups;
  for (const Segment& segment : route) {
    names.clear();
    for (const Member& member : segment.members) names.push_back(member.worker);
    for (const auto& other : groups) {
      if (other == names) continue;
      const bool meets =
          std::find_first_of(other.begin(), other.end(), names.begin(), names.end()) != other.end();
      if (meets) return true;
    }
    if (!names.empty()) groups.push_back(names);
  }
  return false;
}

class ExchangePipeline : public Pipeline {
 public:
  ExchangePipeline(std::shared_ptr<transport::Exchange> exchange,
                   std::unique_ptr<transport::TensorSender> sender,
                   std::unique_ptr<transport::TensorReceiver> receiver,
                   std::unique_ptr<transport::Doorbell> doorbell, const Route& route,
                   const StepShape& shape, int vocab_size, int hidden_size,
                   const StreamCost& stream_cost)
      : exchange_(std::move(exchange)),
        sender_(std::move(sender)),
        receiver_(std::move(receiver)),
        doorbell_(std::move(doorbell)),
        segment_workers_(NumberWorkers(route)),
        one_step_at_a_time_(GroupsOverlap(route)),
        stream_cost_(stream_cost),
        shape_(shape),
        vocab_size_(vocab_size),
        hidden_size_(hidden_size),
        seen_(doorbell_->Sequence()) {}

  uint64_t epoch() const override { return exchange_->epoch(); }
  absl::Span<const int> segment_workers() const override { return segment_workers_; }
  bool one_step_at_a_time() const override { return one_step_at_a_time_; }
  StreamCost stream_cost() const override { return stream_cost_; }

  absl::Status Send(const transport::StepFrame& frame) override {
    return transport::SendStep(*sender_, frame, {}, kMessageTimeout);
  }

  absl::StatusOr<bool> Poll(transport::StepOutput* output) override {
    if (exchange_->aborted()) {
      DT_RETURN_IF_ERROR(exchange_->failure());
      return absl::AbortedError("the connection to the workers was ended");
    }
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
  const bool one_step_at_a_time_;
  const StreamCost stream_cost_;
  const StepShape shape_;
  const int vocab_size_;
  const int hidden_size_;
  uint32_t seen_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> MakeExchangePipeline(
    std::shared_ptr<transport::Exchange> exchange, const Route& route, const StepShape& shape,
    int vocab_size, int hidden_size, const StreamCost& stream_cost) {
  DT_CHECK(exchange != nullptr && !route.empty());
  DT_ASSIGN_OR_RETURN(auto sender, exchange->Sender(transport::kCoordinator, route.front().worker));
  DT_ASSIGN_OR_RETURN(auto receiver,
                      exchange->Receiver(route.back().worker, transport::kCoordinator));
  DT_ASSIGN_OR_RETURN(auto doorbell, exchange->DoorbellOf(transport::kCoordinator));
  return std::make_unique<ExchangePipeline>(std::move(exchange), std::move(sender),
                                            std::move(receiver), std::move(doorbell), route, shape,
                                            vocab_size, hidden_size, stream_cost);
}

}  // namespace dovetail::coordinator
