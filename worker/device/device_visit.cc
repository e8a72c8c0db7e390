// DeviceOps' part for ModelRunner: a visit of a segment, from what a frame brought to what goes on.
//
// The host writes into Staging, whose addresses never change; one launch brings that up, and one
// launch behind the kernels brings everything down and signals the end. So a graph has all of a
// visit in it, and the host's part is to start it and to see the signal. Where the visit ends
// inside a layer with experts there are two: what the next worker begins with has a launch and a
// signal of its own, and kernels go on with the experts here while the frame is on its way.
#include <algorithm>
#include <bit>
#include <utility>

#include "base/status_macros.h"
#include "transport/step_frame.h"
#include "worker/device/device_ops.h"

namespace dovetail::worker {

// Where nobody is waited for in between, and the head has all rows or none: then what is started
// follows from the numbers in the key.
bool DeviceOps::MayBeGraph(const StepContext& step, const SegmentVisit& visit) {
  const auto logit_rows = static_cast<int64_t>(step.logit_rows.size());
  const bool all = step.head_rows.size() == 1 && step.head_rows[0] == Range{0, logit_rows};
  return step.gather == nullptr && !visit.streams && step.rows <= GraphCache::kMaxRows &&
         (all || step.head_rows.empty());
}

// Large arrays leave the GPU's processors to kernels.
CopyList::Way DeviceOps::WayOf(const StepContext& step) {
  return step.rows <= GraphCache::kMaxRows ? CopyList::Way::kKernel : CopyList::Way::kCopies;
}

// Whether RunLayers() ends with the signal. Else copies follow that no graph can have in it: of
// rows to a link, whose place is another one each time, or of logits, of whichever rows want them.
bool DeviceOps::SignalsInLayers(const StepContext& step, const SegmentVisit& visit) const {
  return visit.links.out == nullptr && !(FetchesLogits(visit) && !step.logits_wanted.empty());
}

// Whether the frame goes before what experts make: not where its rows have to be copied to a link
// by then, and not where the host has ended the step before any layer.
bool DeviceOps::LeavesAhead(const StepContext& step, const SegmentVisit& visit) {
  return visit.leaves != nullptr && visit.leaves->makes_partials() && visit.links.out == nullptr &&
         step.finite.load(std::memory_order_relaxed);
}

void DeviceOps::StageTables(const StepContext& step, const SegmentVisit& visit) {
  const DeviceTables &host = staging_->tables, &device = ws_.tables;
  const auto num_sequences = static_cast<int64_t>(step.sequences.size());
  int64_t num_blocks = 0;
  for (int64_t i = 0; i < num_sequences; ++i) {
    kernels::SequenceRows& sequence = host.sequences[i];
    sequence = step.sequences[i];
    const int64_t tokens = int64_t{sequence.position} + sequence.num_rows;
    const int64_t blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    std::copy(sequence.blocks, sequence.blocks + blocks, host.blocks + num_blocks);
    sequence.blocks = device.blocks + num_blocks;
    num_blocks += blocks;
  }
  if (fixed_splits_ > 0) {  // as many as any step of the shape may have
    constexpr int64_t kSplitBlocks = kKvSplitTokens / kKvBlockTokens;
    num_blocks = num_sequences * std::min(fixed_splits_ * kSplitBlocks, max_blocks_);
  }
  up_.Add(device.sequences, host.sequences, num_sequences);
  up_.Add(device.blocks, host.blocks, num_blocks);
  std::copy(step.logit_rows.begin(), step.logit_rows.end(), host.rows);
  up_.Add(device.rows, host.rows, static_cast<int64_t>(step.logit_rows.size()));
  if (!visit.embeds_in_head) return;
  std::copy(step.tokens.begin(), step.tokens.end(), host.tokens);
  up_.Add(device.tokens, host.tokens, step.rows);
}

absl::Status DeviceOps::Begin(StepContext& step, const SegmentVisit& visit) {
  if (step.partials != nullptr) DT_RETURN_IF_ERROR(step.partials->Receive());
  up_.Clear();
  fixed_splits_ = 0;
  if (MayBeGraph(step, visit)) {
    // Contexts grow; launches that have room for twice as much are good for as long again.
    const auto splits = static_cast<uint64_t>(std::max<int64_t>(SplitsOf(step, 0, step.rows), 1));
    fixed_splits_ = std::min(static_cast<int64_t>(std::bit_ceil(splits)), max_splits_);
  }
  StageTables(step, visit);
  const HostRows& host = staging_->rows;
  const ExpertBuffers& experts = ws_.experts;
  const FrameRows& came = visit.came;
  const int64_t hidden = came.hidden * row_shape_.hidden_size;
  if (visit.links.in != nullptr && hidden > 0) {
    DT_RETURN_IF_ERROR(visit.links.in->Receive(reinterpret_cast<uint8_t*>(ws_.x),
                                               hidden * static_cast<int64_t>(sizeof(float)),
                                               visit.links.timeout));
  } else {
    up_.Add(ws_.x, host.x, hidden);
  }
  if (came.slots == 0) return absl::OkStatus();
  up_.Add(experts.slot_experts, host.slot_experts, came.slots * row_shape_.experts_used);
  up_.Add(experts.slot_weights, host.slot_weights, came.slots * row_shape_.slots());
  *staging_->partial_rows = static_cast<int32_t>(came.partials);
  up_.AddRows(experts.y, host.y, 0, row_shape_.hidden_size, staging_->partial_rows);
  return absl::OkStatus();
}

void DeviceOps::RunLayers(StepContext& step, const SegmentVisit& visit,
                          absl::FunctionRef<void()> forward) {
  visit_ = &visit;
  ahead_ = LeavesAhead(step, visit);
  const auto run = [&] {
    up_.Upload(&device_, WayOf(step));
    forward();
    BringDown(step, visit);
  };
  // What the host found out ends the step where it is; it is nothing of the shape's.
  if (fixed_splits_ == 0 || !step.finite.load(std::memory_order_relaxed)) return run();
  graphs_.Run(
      {.segment = visit.segment,
       .rows = step.rows,
       .x_rows = step.x_rows,
       .sequences = static_cast<int32_t>(step.sequences.size()),
       .logit_rows = static_cast<int32_t>(step.logit_rows.size()),
       .head_rows = static_cast<int32_t>(step.head_rows.empty() ? 0 : step.logit_rows.size()),
       .splits = fixed_splits_,
       .link_in = visit.links.in != nullptr,
       .link_out = visit.links.out != nullptr,
       .signals = SignalsInLayers(step, visit)},
      step, run);
}

void DeviceOps::ListSlots(const Moe& moe, int64_t rows, CopyList* down) const {
  const HostRows& host = staging_->rows;
  const ExpertBuffers& experts = ws_.experts;
  down->Add(host.slot_experts, experts.slot_experts, rows * row_shape_.experts_used);
  down->Add(host.slot_weights, experts.slot_weights, rows * row_shape_.slots());
  if (moe.PartialRowsOf(rows).place < 0) return;
  down->Add(staging_->expert_begin, experts.begin, row_shape_.num_experts + 1);
}

void DeviceOps::ListPartials(const Moe& moe, int64_t rows, CopyList* down) const {
  const ExpertBuffers& experts = ws_.experts;
  const Moe::PartialRows partial = moe.PartialRowsOf(rows);
  const int32_t* const more = partial.place < 0 ? nullptr : experts.begin + partial.place;
  if (partial.rows == 0 && more == nullptr) return;
  down->AddRows(staging_->rows.y, experts.y, partial.rows, row_shape_.hidden_size, more);
}

void DeviceOps::ListRows(const StepContext& step, const SegmentVisit& visit, CopyList* down) const {
  down->Add(staging_->tables.flags, ws_.tables.flags, ws_.tables.num_flags);
  if (visit.links.out == nullptr) {
    down->Add(staging_->rows.x, step.x, int64_t{step.x_rows} * row_shape_.hidden_size);
  }
  if (visit.leaves != nullptr) ListSlots(*visit.leaves, step.x_rows, down);
}

void DeviceOps::BringDownAhead(const StepContext& step, const Moe& moe) {
  if (!ahead_ || visit_->leaves != &moe) return;
  CopyList down;
  ListRows(step, *visit_, &down);
  down.Download(&device_, WayOf(step), /*signal=*/true);
}

void DeviceOps::BringDown(const StepContext& step, const SegmentVisit& visit) {
  CopyList down;
  if (!ahead_) ListRows(step, visit, &down);
  if (visit.leaves != nullptr) ListPartials(*visit.leaves, step.x_rows, &down);
  if (FetchesLogits(visit)) {
    for (const Range& range : step.head_rows) {
      kernels_.argmax(ws_.logits + range.begin * vocab_size_, vocab_size_, range.size(),
                      vocab_size_, ws_.tables.best_tokens + range.begin, stream());
    }
    down.Add(staging_->tables.best_tokens, ws_.tables.best_tokens,
             static_cast<int64_t>(step.logit_rows.size()));
  }
  down.Download(&device_, WayOf(step), SignalsInLayers(step, visit));
}

absl::Status DeviceOps::LeaveByLink(const StepContext& step, const StepLinks& links) {
  const int64_t hidden = int64_t{step.x_rows} * row_shape_.hidden_size;
  if (links.out == nullptr || hidden == 0) return absl::OkStatus();
  const int64_t bytes = hidden * static_cast<int64_t>(sizeof(float));
  DT_ASSIGN_OR_RETURN(uint8_t* const place, links.out->Next(bytes, links.timeout));
  device_.Copy(place, step.x, bytes);
  return absl::OkStatus();
}

// Of those that share the head's rows the first has them all, and draws.
bool DeviceOps::FetchesLogits(const SegmentVisit& visit) const {
  return visit.logits && staging_->rows.probs != nullptr;
}

absl::Status DeviceOps::Finish(StepContext& step, const SegmentVisit& visit, int32_t* not_finite) {
  DT_RETURN_IF_ERROR(LeaveByLink(step, visit.links));
  if (!SignalsInLayers(step, visit)) {
    if (FetchesLogits(visit)) {
      for (const Range& range : step.logits_wanted) {
        const int64_t first = range.begin * vocab_size_;
        DownloadArray(staging_->rows.logits + first, ws_.logits + first,
                      range.size() * vocab_size_);
      }
    }
    device_.CopySmall({}, /*signal=*/true);
  }
  // Nothing that is not finite is looked for behind the first of two signals.
  DT_RETURN_IF_ERROR(device_.AwaitEarlierSignal(ahead_ ? 1 : 0));
  *not_finite = TakeFlags(visit.op_numbers);
  // What the host has seen, or another member.
  if (*not_finite < 0 && !step.finite.load(std::memory_order_relaxed)) {
    *not_finite = static_cast<int32_t>(step.op_numbers[step.part]);
  }
  return absl::OkStatus();
}

absl::Status DeviceOps::AwaitPartials() {
  if (!ahead_) return absl::OkStatus();
  ahead_ = false;
  return device_.AwaitSignal();
}

int32_t DeviceOps::TakeFlags(absl::Span<const uint32_t> op_numbers) {
  const DeviceTables& host = staging_->tables;
  int32_t first = -1;
  for (uint32_t op : op_numbers) {
    if (host.flags[op] != 0 && first < 0) first = static_cast<int32_t>(op);
  }
  if (first < 0) return first;
  std::fill(host.flags, host.flags + host.num_flags, 0);
  UploadArray(ws_.tables.flags, host.flags, host.num_flags);
  return first;
}

}  // namespace dovetail::worker
