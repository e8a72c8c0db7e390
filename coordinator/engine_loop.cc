#include "coordinator/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kMaxMaskWait = absl::Milliseconds(2);

// A step may take so many times what was predicted.
constexpr double kTimesPredicted = 20;
// A sequence with which the pipeline was lost so often, without a new token in between, may be the
// reason for it.
constexpr int kMostInterruptions = 4;
constexpr double kHopeless = 2;  // times what is left until the deadline

SchedulerOptions OptionsOfScheduler(const EngineOptions& options) {
  SchedulerOptions result;
  result.shape = options.shape;
  result.chunk_size = options.chunk_size;
  result.lanes = options.lanes;
  result.hidden_size = options.hidden_size;
  result.adaptive_lanes = options.adaptive_lanes;
  result.token_target = options.token_target;
  result.preemption = options.preemption;
  result.cost = options.cost;
  result.stream_rows = options.stream_rows;
  return result;
}

}  // namespace

EngineLoop::EngineLoop(const EngineOptions& options)
    : options_(options), scheduler_(OptionsOfScheduler(options)), steps_(options.lanes) {
  DT_CHECK_GT(options.vocab_size, 0);
  frame_.Reserve(options.shape);
  output_.Reserve(options.shape, options.vocab_size, options.hidden_size);
}

void EngineLoop::Add(NewRequest request, absl::Time now) {
  const RequestId id = request.sequence->id;
  Sequence* sequence = scheduler_.Add(std::move(request.sequence), now);
  requests_[id] = {
      sequence, std::move(request.sink),      std::move(request.end_tokens), request.deadline,
      now,      std::move(request.constraint)};
  if (requests_[id].constraint != nullptr) WaitForMask(&requests_[id]);
  if (pipeline_ == nullptr && suspended_since_ == absl::InfiniteFuture()) {
    return Finish(id, FinishReason::kError,
                  absl::UnavailableError("the workers are not connected"));
  }
  // What cannot be done in time is not begun. Predictions err, so it must be far from possible.
  const absl::Duration needed = scheduler_.PredictedPrefill(*sequence);
  if (needed > kHopeless * (request.deadline - now)) {
    Finish(id, FinishReason::kError,
           absl::DeadlineExceededError(
               absl::StrCat("the prompt alone takes about ", absl::FormatDuration(needed),
                            ", longer than the request's deadline allows")));
  }
}

void EngineLoop::Cancel(RequestId id) {
  if (requests_.contains(id)) {
    Finish(id, FinishReason::kCancelled, absl::CancelledError("the request was cancelled"));
  }
}

void EngineLoop::SetPipeline(std::shared_ptr<Pipeline> pipeline, absl::Time now) {
  SuspendPipeline(absl::UnavailableError("the workers were replaced"), now);
  pipeline_ = std::move(pipeline);
  scheduler_.SetRoute(pipeline_->segment_workers(), pipeline_->stream_cost());
  steps_.Begin(MostInFlight(*pipeline_, options_));
  if (suspended_since_ == absl::InfiniteFuture()) return;
  ++num_recoveries_;
  recovery_time_ += now - suspended_since_;
  suspended_since_ = absl::InfiniteFuture();
}

void EngineLoop::SuspendPipeline(const absl::Status& reason, absl::Time now) {
  suspend_reason_ = reason;
  if (pipeline_ == nullptr) return;
  steps_.Clear();
  scheduler_.LoseEpoch();
  pipeline_.reset();
  suspended_since_ = now;
  recovery_ = Patience(options_.recovery_timeout);
  std::vector<RequestId> given_up;
  for (const auto& [id, request] : requests_) {
    if (request.sequence->num_interruptions >= kMostInterruptions) given_up.push_back(id);
  }
  for (RequestId id : given_up) {
    Finish(id, FinishReason::kError,
           absl::UnavailableError(absl::StrCat(reason.message(), "; the workers were lost ",
                                               kMostInterruptions, " times at this token")));
  }
}

void EngineLoop::ClearPipeline(const absl::Status& reason) {
  SuspendPipeline(reason, absl::InfinitePast());
  suspended_since_ = absl::InfiniteFuture();
  EndAll(FinishReason::kError, reason);
}

// An error of the pipeline, seen by us and not by the cluster.
void EngineLoop::Lose(const absl::Status& error, absl::Time now) {
  const absl::Status reason =
      error.code() == absl::StatusCode::kUnavailable
          ? error
          : absl::UnavailableError(absl::StrCat("the workers were lost: ", error.message()));
  SuspendPipeline(reason, now);
  if (options_.on_pipeline_lost) options_.on_pipeline_lost(reason);
}

void EngineLoop::EndAll(FinishReason reason, const absl::Status& status) {
  while (!requests_.empty()) Finish(requests_.begin()->first, reason, status);
}

void EngineLoop::Finish(RequestId id, FinishReason reason, const absl::Status& status) {
  auto it = requests_.find(id);
  DT_CHECK(it != requests_.end());
  const Request request = std::move(it->second);
  requests_.erase(it);
  if (request.sequence->waits_for_mask) --num_without_mask_;
  RequestUsage usage;
  usage.prompt_tokens = request.sequence->num_prompt_tokens;
  usage.completion_tokens = request.sequence->num_tokens() - request.sequence->num_prompt_tokens;
  usage.cached_tokens = std::max(0, request.sequence->num_cached_tokens);
  usage.admitted = request.sequence->admitted;
  scheduler_.Remove(request.sequence);
  request.sink->OnFinish(reason, status, usage);
}

bool EngineLoop::CollectOutputs(absl::Time now) {
  bool any = false;
  while (pipeline_ != nullptr) {
    absl::StatusOr<bool> came = pipeline_->Poll(&output_);
    if (!came.ok()) {
      Lose(came.status(), now);
      return true;
    }
    if (!*came) break;
    any = true;
    if (output_.header.epoch != pipeline_->epoch()) continue;  // of a worker's past life
    if (absl::Status handled = HandleOutput(now); !handled.ok()) Lose(handled, now);
  }
  return any;
}

absl::Status EngineLoop::HandleOutput(absl::Time now) {
  const transport::OutputHeader& header = output_.header;
  if (!steps_.IsNext(header.lane, header.step)) {
    return absl::InternalError(absl::StrCat("step ", header.step, " of lane ", header.lane,
                                            " came back, which is not the next one in flight"));
  }
  const int lane = static_cast<int>(header.lane);
  if (header.error_layer != 0) {
    FailStep(lane, header.error_layer);
    scheduler_.DropStep(lane);
  } else {
    OutputSplit split(output_, options_.vocab_size, options_.hidden_size);
    for (const ScheduledRows& rows : scheduler_.in_flight(lane)) {
      DT_ASSIGN_OR_RETURN(const RowsOutput output, split.Take(rows));
      if (!rows.sequence->removed) Deliver(rows, output);
    }
    const StepsInFlight::Step& step = steps_.of(lane);
    scheduler_.Observe(lane, output_.segment_us, absl::ToDoubleSeconds(now - step.sent),
                       step.alone);
    scheduler_.CompleteStep(lane);
  }
  steps_.NoteBack(lane);
  return absl::OkStatus();
}

// Rows of the prompt first, then the one from which the token was drawn: the last one, which may be
// both.
void EngineLoop::DeliverLogprobs(const ScheduledRows& rows, bool draws,
                                 absl::Span<const TokenLogprob> logprobs, TokenSink* sink) {
  const Sequence& sequence = *rows.sequence;
  const size_t per_row = 1 + static_cast<size_t>(sequence.num_top_logprobs);
  int position = rows.num_logit_rows > 0 ? rows.first_logit_row + 1 : sequence.num_tokens();
  for (size_t i = 0; i < logprobs.size(); i += per_row, ++position) {
    if (position >= sequence.num_prompt_tokens && !draws) break;  // no token follows
    sink->OnLogprobs(position, logprobs.subspan(i, per_row));
  }
}

void EngineLoop::Deliver(const ScheduledRows& rows, const RowsOutput& output) {
  Sequence& sequence = *rows.sequence;
  auto it = requests_.find(sequence.id);
  DT_CHECK(it != requests_.end());
  Request& request = it->second;
  const bool prompt_done = rows.position + rows.num_rows >= sequence.num_prompt_tokens;
  if (prompt_done && !request.prompt_counted) {
    request.prompt_counted = true;
    num_prompt_tokens_ += sequence.num_prompt_tokens;
  }
  const int32_t token = output.token;
  const bool ends = rows.samples && std::find(request.end_tokens.begin(), request.end_tokens.end(),
                                              token) != request.end_tokens.end();
  if (!output.logprobs.empty()) {
    DeliverLogprobs(rows, rows.samples && !ends, output.logprobs, request.sink.get());
  } else if (sequence.wants_hidden && rows.num_logit_rows > 0) {
    request.sink->OnHidden(rows.first_logit_row, output.hidden, options_.hidden_size);
  } else if (rows.num_logit_rows > 0) {
    request.sink->OnLogits(rows.first_logit_row, output.logits, options_.vocab_size);
  }
  if (!rows.samples) {
    if (prompt_done && !sequence.samples()) {
      Finish(sequence.id, FinishReason::kLength, absl::OkStatus());
    }
    return;
  }
  if (ends) {
    return Finish(sequence.id, FinishReason::kStop, absl::OkStatus());
  }
  sequence.tokens.push_back(token);
  ++num_generated_tokens_;
  if (request.constraint != nullptr) {
    request.constraint->Accept(token);
    WaitForMask(&request);
  }
  request.sink->OnToken(token);
  if (sequence.num_tokens() >= sequence.max_total_tokens) {
    Finish(sequence.id, FinishReason::kLength, absl::OkStatus());
  }
}

// A value that is not finite in one row cannot be told from one in another: the whole step has
// failed.
void EngineLoop::FailStep(int lane, uint32_t error_layer) {
  const size_t op = error_layer - 1;
  const std::string where = op < options_.module_names.size() ? options_.module_names[op]
                                                              : absl::StrCat("operation ", op);
  const absl::Status status =
      absl::InternalError(absl::StrCat("a value stopped being finite in ", where));
  for (const ScheduledRows& rows : scheduler_.in_flight(lane)) {
    if (!rows.sequence->removed) Finish(rows.sequence->id, FinishReason::kError, status);
  }
}

void EngineLoop::ExpireRequests(absl::Time now) {
  std::vector<RequestId> expired;
  for (const auto& [id, request] : requests_) {
    if (request.deadline <= now) expired.push_back(id);
  }
  for (RequestId id : expired) {
    Finish(id, FinishReason::kError,
           absl::DeadlineExceededError("the request did not finish before its deadline"));
  }
  if (suspended_since_ != absl::InfiniteFuture() && recovery_.Exhausted(now)) {
    suspended_since_ = absl::InfiniteFuture();
    return EndAll(FinishReason::kError,
                  absl::UnavailableError(
                      absl::StrCat(suspend_reason_.message(), "; the workers were not back within ",
                                   absl::FormatDuration(options_.recovery_timeout))));
  }
  if (const StepsInFlight::Step* step = steps_.FindOverdue(now); step != nullptr) {
    Lose(absl::DeadlineExceededError(absl::StrCat("step ", step->number,
                                                  " did not come back within ",
                                                  absl::FormatDuration(step->patience.limit()))),
         now);
  }
}

void EngineLoop::ScheduleSteps(absl::Time now) {
  if (num_without_mask_ > 0) TakeMasks();
  if (pipeline_ == nullptr || scheduler_.idle()) return;
  for (int i = 0, first = steps_.first_lane(); i < options_.lanes && steps_.MaySend(); ++i) {
    const int lane = (first + i) % options_.lanes;
    if (steps_.of(lane).in_flight || !scheduler_.Schedule(lane, now, &frame_)) continue;
    steps_.NoteSent(lane, ++num_steps_, StepAllowance(), now);
    frame_.header.epoch = pipeline_->epoch();
    frame_.header.step = num_steps_;
    if (absl::Status sent = pipeline_->Send(frame_); !sent.ok()) return Lose(sent, now);
  }
  // With nothing in flight the oldest sequence can always go on: anything else would wait for ever.
  DT_CHECK(steps_.count() > 0 || num_without_mask_ > 0);
}

void EngineLoop::WaitForMask(Request* request) {
  request->sequence->mask = nullptr;
  request->sequence->waits_for_mask = true;
  ++num_without_mask_;
}

// A mask takes microseconds as a rule: waiting for it a little costs less than leaving its sequence
// out of a step. One that takes longer does not keep the others.
void EngineLoop::TakeMasks() {
  const absl::Time until = absl::Now() + kMaxMaskWait;
  std::vector<std::pair<RequestId, absl::Status>> over;
  for (auto& [id, request] : requests_) {
    Sequence* sequence = request.sequence;
    if (!sequence->waits_for_mask || !request.constraint->WaitReady(until - absl::Now())) continue;
    sequence->waits_for_mask = false;
    --num_without_mask_;
    const TokenConstraint::Next& next = request.constraint->next();
    sequence->mask = &next.mask;
    if (!next.status.ok() || next.finished) over.emplace_back(id, next.status);
  }
  for (const auto& [id, status] : over) {
    Finish(id, status.ok() ? FinishReason::kStop : FinishReason::kError, status);
  }
}

// A step may have to wait for those of the other lanes.
absl::Duration EngineLoop::StepAllowance() const {
  const CostModel& model = scheduler_.cost_model();
  int rows = 0;
  double predicted = 0;
  for (int lane = 0; lane < options_.lanes; ++lane) {
    for (const ScheduledRows& scheduled : scheduler_.in_flight(lane)) rows += scheduled.num_rows;
    if (model.ready()) predicted += model.PassSeconds(scheduler_.work(lane));
  }
  const absl::Duration most = options_.step_timeout_per_row * rows;
  const absl::Duration known = absl::Seconds(kTimesPredicted * predicted);
  return options_.step_timeout + (model.ready() ? std::min(most, known) : most);
}

absl::Duration EngineLoop::UntilNextDeadline(absl::Time now) const {
  absl::Duration left = steps_.UntilNextLook();
  for (const auto& [id, request] : requests_) {
    if (request.deadline != absl::InfiniteFuture()) left = std::min(left, request.deadline - now);
  }
  if (!requests_.empty() && suspended_since_ != absl::InfiniteFuture()) {
    left = std::min(left, recovery_.UntilNextLook());
  }
  return std::max(left, absl::ZeroDuration());
}

EngineStats EngineLoop::Stats() const {
  EngineStats stats;
  stats.running = scheduler_.num_running();
  stats.waiting = scheduler_.num_waiting();
  const KvCache& kv = scheduler_.kv();
  stats.kv_blocks_total = kv.pool().num_blocks();
  stats.kv_blocks_used = kv.pool().num_used();
  stats.kv_blocks_cached = kv.pool().num_cached();
  stats.waiting_swapped = scheduler_.num_swapped();
  stats.swap_blocks_total = options_.shape.num_swap_blocks;
  stats.swap_blocks_used = kv.num_swap_used();
  stats.decode_lanes = scheduler_.decode_lanes();
  stats.tenants = scheduler_.num_tenants();
  stats.prompt_tokens = num_prompt_tokens_;
  stats.generated_tokens = num_generated_tokens_;
  stats.prefix_queried_tokens = kv.num_queried_tokens();
  stats.prefix_cached_tokens = kv.num_found_tokens();
  stats.steps = num_steps_;
  stats.preemptions = scheduler_.num_preemptions();
  stats.preemptions_by_swap = scheduler_.counts().swaps;
  stats.interrupted = scheduler_.counts().interrupted;
  stats.streamed_steps = scheduler_.counts().streamed;
  stats.recoveries = num_recoveries_;
  stats.recovery_seconds = absl::ToDoubleSeconds(recovery_time_);
  stats.predicted_wait_seconds = absl::ToDoubleSeconds(scheduler_.PredictedWait());
  return stats;
}

std::vector<SequenceInfo> EngineLoop::ListSequences(absl::Time now) const {
  std::vector<SequenceInfo> list;
  for (const auto& [id, request] : requests_) {
    const Sequence& sequence = *request.sequence;
    SequenceInfo& info = list.emplace_back();
    info.id = id;
    info.tenant = sequence.tenant_name;
    info.running = sequence.lane >= 0;
    info.lane = sequence.lane;
    info.prompt_tokens = sequence.num_prompt_tokens;
    info.generated_tokens = sequence.num_tokens() - sequence.num_prompt_tokens;
    info.computed_tokens = sequence.num_computed_tokens;
    info.kv_blocks = static_cast<int>(sequence.blocks.size());
    info.preemptions = sequence.num_preemptions;
    info.priority = sequence.priority;
    info.age = now - request.arrived;
  }
  return list;
}

}  // namespace dovetail::coordinator
