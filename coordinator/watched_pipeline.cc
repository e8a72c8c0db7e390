#include "coordinator/watched_pipeline.h"

#include <utility>

namespace dovetail::coordinator {
namespace {

class WatchedPipeline final : public Pipeline {
 public:
  WatchedPipeline(std::unique_ptr<Pipeline> inner, std::shared_ptr<const PipelineWatch> watch)
      : inner_(std::move(inner)), watch_(std::move(watch)) {}

  uint64_t epoch() const override { return inner_->epoch(); }
  absl::Span<const int> segment_workers() const override { return inner_->segment_workers(); }
  bool one_step_at_a_time() const override { return inner_->one_step_at_a_time(); }
  StreamCost stream_cost() const override { return inner_->stream_cost(); }

  absl::Status Send(const transport::StepFrame& frame) override {
    absl::Status status = inner_->Send(frame);
    return status.ok() ? status : watch_->Translate(status);
  }

  absl::StatusOr<bool> Poll(transport::StepOutput* output) override {
    absl::StatusOr<bool> result = inner_->Poll(output);
    if (result.ok()) return result;
    return watch_->Translate(result.status());
  }

  void Wait(absl::Duration timeout) override { inner_->Wait(timeout); }
  void Wake() override { inner_->Wake(); }

 private:
  std::unique_ptr<Pipeline> inner_;
  const std::shared_ptr<const PipelineWatch> watch_;
};

}  // namespace

void PipelineWatch::SetReason(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (reason_.ok()) reason_ = reason;
}

absl::Status PipelineWatch::Translate(const absl::Status& error) const {
  absl::MutexLock lock(&mutex_);
  return reason_.ok() ? error : reason_;
}

std::unique_ptr<Pipeline> MakeWatchedPipeline(std::unique_ptr<Pipeline> inner,
                                              std::shared_ptr<const PipelineWatch> watch) {
  return std::make_unique<WatchedPipeline>(std::move(inner), std::move(watch));
}

}  // namespace dovetail::coordinator
