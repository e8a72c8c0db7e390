#include "worker/model_runner.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"
#include "worker/cpu/cpu_ops.h"
#include "worker/device/device_ops.h"

namespace dovetail::worker {
namespace {

using transport::SequenceStep;
using transport::StepFrame;
using transport::StepHeader;

// Workers share the rows of all parts of a layer with experts, or of none.
absl::Status CheckParts(const Segment& segment, const model::ModelConfig& config) {
  for (const Op& op : model::OpsOf(config)) {
    if (op.kind != OpKind::kRouter) continue;
    const auto parts = std::count_if(segment.ops.begin(), segment.ops.end(), [&](const Op& part) {
      return IsExpertPart(part.kind) && part.layer == op.layer;
    });
    const int all = config.experts.shared_intermediate_size > 0 ? 3 : 2;
    if (parts == 0 || parts == all) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the route shares the rows of ", parts, " parts of ", model::ModuleName(op), " of ", all));
  }
  return absl::OkStatus();
}

absl::Status CheckRoute(const Route& route, const model::ModelConfig& config,
                        const std::string& worker) {
  std::vector<Op> ops;
  bool mine = false;
  for (const Segment& segment : route) {
    ops.insert(ops.end(), segment.ops.begin(), segment.ops.end());
    mine |= MemberOf(segment, worker) >= 0;
    if (!segment.members.empty()) DT_RETURN_IF_ERROR(CheckParts(segment, config));
  }
  DT_RETURN_IF_ERROR(Annotate(model::CheckOps(config, ops), "the route"));
  if (!mine) return absl::InvalidArgumentError(absl::StrCat("no segment is for ", worker));
  return absl::OkStatus();
}

// One range with the last one where it follows.
void AppendRange(int64_t first, int64_t count, std::vector<Range>* ranges) {
  const bool follows = !ranges->empty() && ranges->back().end == first;
  if (!follows) ranges->push_back({first, first});
  ranges->back().end += count;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(const transport::WorkerPlan& plan,
                                                                 const std::string& worker,
                                                                 std::unique_ptr<WeightStore> store,
                                                                 const ComputeOptions& compute) {
  DT_RETURN_IF_ERROR(CheckRoute(plan.route, store->config, worker));
  const int32_t vocab_size = store->config.vocab_size;
  if (plan.step_shape.vocab_size != 0 && plan.step_shape.vocab_size != vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("the plan's masks are for ",
                                                   plan.step_shape.vocab_size,
                                                   " tokens, the model has ", vocab_size));
  }
  auto runner = absl::WrapUnique(new ModelRunner());
  runner->route_ = plan.route;
  runner->worker_ = worker;
  runner->shape_ = plan.step_shape;
  runner->row_shape_ = model::RowShapeOf(store->config);
  runner->store_ = std::move(store);
  runner->on_device_ = compute.device != nullptr;
  DT_RETURN_IF_ERROR(runner->MakeOps(compute));
  runner->sequences_.reserve(plan.step_shape.max_sequences);
  runner->head_rows_.reserve(plan.step_shape.max_sequences);
  runner->logits_wanted_.reserve(plan.step_shape.max_sequences);
  runner->segments_.resize(plan.route.size());
  bool after_norm = false;
  for (size_t i = 0; i < plan.route.size(); ++i) {
    const Segment& segment = plan.route[i];
    BoundSegment& bound = runner->segments_[i];
    bound.from_tokens = i == 0;
    bound.after_norm = after_norm;
    for (const Op& op : segment.ops) after_norm |= op.kind == OpKind::kNorm;
    const int member = MemberOf(segment, worker);
    bound.mine = member >= 0;
    runner->kv_of_segment_ = &bound.kv;
    if (bound.mine) runner->BindSegment(OpsOfMember(segment, member), &bound);
  }
  if (compute.device != nullptr) DT_RETURN_IF_ERROR(compute.device->Wait());
  return runner;
}

absl::Status ModelRunner::MakeOps(const ComputeOptions& compute) {
  const int num_threads = compute.pool->num_threads();
  std::vector<Op> streamed;
  if (compute.device != nullptr && shape_.stream_bytes > 0) {
    streamed = StreamedOps(route_, worker_);
    const std::vector<bool> segments = StreamedSegments(route_, worker_);
    for (size_t i = 0; i < route_.size(); ++i) {
      const std::string& owner = route_[i].worker;
      if (!segments[i] || absl::c_linear_search(streamed_workers_, owner)) continue;
      streamed_workers_.push_back(owner);
    }
  }
  DT_ASSIGN_OR_RETURN(workspace_,
                      Workspace::Create(store_->config, store_->ops, shape_, store_->layout,
                                        num_threads, compute.device, streamed));
  if (compute.device == nullptr) {
    ops_ = std::make_unique<CpuOps>(compute.kernels, compute.pool, workspace_.get());
    return absl::OkStatus();
  }
  DT_ASSIGN_OR_RETURN(auto staging, Staging::Create(store_->config, store_->ops, shape_,
                                                    num_threads, compute.device));
  ops_ = std::make_unique<DeviceOps>(compute.device, compute.kernels, compute.pool,
                                     workspace_.get(), std::move(staging), row_shape_, vocab_size(),
                                     shape_.context_length);
  return absl::OkStatus();
}

int64_t ModelRunner::max_gathered_rows() const {
  const int64_t pairs = int64_t{shape_.max_rows} * std::max(row_shape_.experts_used, 1);
  return std::max<int64_t>(pairs, shape_.max_logit_rows);
}

transport::StepRoom ModelRunner::room() {
  const HostRows& host = ops_->host();
  const size_t rows = host.slot_experts == nullptr ? 0 : static_cast<size_t>(shape_.max_rows);
  return {
      .hidden = absl::MakeSpan(host.x, static_cast<size_t>(host.x_floats)),
      .slot_experts = absl::MakeSpan(host.slot_experts, rows * row_shape_.experts_used),
      .slot_weights = absl::MakeSpan(host.slot_weights, rows * row_shape_.slots()),
      .partials = absl::MakeSpan(host.y, static_cast<size_t>(host.y_floats)),
  };
}

absl::Status ModelRunner::ValidateRows(const StepHeader& h) const {
  const BoundSegment& segment = segments_[h.segment];
  const auto check = [&](const char* field, uint32_t found, int64_t expected) {
    if (found == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("step ", h.step, ", segment ", h.segment, ": ",
                                                   field, " is ", found, ", expected ", expected));
  };
  const bool nothing = segment.from_tokens || h.error_layer != 0;
  const uint32_t rows = nothing ? 0 : segment.after_norm ? h.num_logit_rows : h.num_rows;
  DT_RETURN_IF_ERROR(check("hidden_rows", h.hidden_rows, rows));
  const bool inside = segment.enters != nullptr && !nothing;
  DT_RETURN_IF_ERROR(check("slot_rows", h.slot_rows, inside ? rows : 0));
  return check("partial_rows", h.partial_rows,
               inside ? segment.enters->NumCarriedRows(ops_->host().slot_experts, rows) : 0);
}

absl::Status ModelRunner::OutsideVocabulary(uint64_t step, absl::string_view what,
                                            int32_t token) const {
  return absl::InvalidArgumentError(absl::StrCat("step ", step, ": ", what, " ", token,
                                                 " is outside the vocabulary of ", vocab_size()));
}

absl::Status ModelRunner::Validate(const StepFrame& frame) const {
  const StepHeader& h = frame.header;
  if (h.segment >= segments_.size() || !segments_[h.segment].mine) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", h.step, ": segment ", h.segment, " is not this worker's"));
  }
  DT_RETURN_IF_ERROR(ValidateRows(h));
  for (int32_t token : frame.tokens) {
    if (token < 0 || token >= vocab_size()) return OutsideVocabulary(h.step, "token", token);
  }
  for (int32_t target : frame.targets) {
    if (target >= vocab_size()) return OutsideVocabulary(h.step, "target", target);
  }
  for (const LogitAdjustment& adjustment : frame.adjustments) {
    if (adjustment.token >= vocab_size()) {
      return OutsideVocabulary(h.step, "adjusted token", adjustment.token);
    }
  }
  int32_t last_row = -1;
  size_t logit_row = 0;
  for (const SequenceStep& s : frame.sequences) {
    last_row += s.num_rows;
    logit_row += s.num_logit_rows;
    if ((s.flags & SequenceStep::kSample) != 0 &&
        (s.num_logit_rows == 0 || frame.logit_rows[logit_row - 1] != last_row)) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", h.step, ": sequence ", s.sequence_id,
                       " wants a token, but not the logits of its last row"));
    }
  }
  return absl::OkStatus();
}

void ModelRunner::FillSequences(const StepFrame& frame) {
  sequences_.clear();
  head_rows_.clear();
  logits_wanted_.clear();
  int32_t row = 0;
  int64_t logit_row = 0;
  const int32_t* blocks = frame.block_ids.data();
  for (const SequenceStep& s : frame.sequences) {
    sequences_.push_back(
        {.row_begin = row, .num_rows = s.num_rows, .position = s.position, .blocks = blocks});
    row += s.num_rows;
    blocks += s.num_blocks;
    if ((s.flags & SequenceStep::kReturnHidden) == 0 && s.num_logit_rows > 0) {
      AppendRange(logit_row, s.num_logit_rows, &head_rows_);
      if (!s.TakesBestToken()) AppendRange(logit_row, s.num_logit_rows, &logits_wanted_);
    }
    logit_row += s.num_logit_rows;
  }
}

const ModelRunner::StreamedRun* ModelRunner::FindStreamedRun(const StepHeader& header) const {
  if ((header.flags & StepHeader::kStreamExperts) == 0) return nullptr;
  const auto run = streamed_runs_.find(header.segment);
  return run == streamed_runs_.end() ? nullptr : &run->second;
}

uint32_t ModelRunner::LastSegment(const StepHeader& header) const {
  const StreamedRun* const run = FindStreamedRun(header);
  return run == nullptr ? header.segment : run->last;
}

absl::Status ModelRunner::Run(StepFrame* frame, AllGather* gather, const StepLinks& links,
                              transport::ComingPartials* partials) {
  const absl::Time start = absl::Now();
  StepHeader& header = frame->header;
  const StreamedRun* const run = FindStreamedRun(header);
  const bool streamed = run != nullptr;
  const BoundSegment& segment = streamed ? run->bound : segments_[header.segment];
  const uint32_t last = LastSegment(header);
  DT_CHECK(segment.mine);
  const bool by_link = (header.flags & StepHeader::kHiddenOnLink) != 0;
  if (by_link && links.in == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", header.step, ": its rows are on a link, and there is none"));
  }
  header.flags &= ~uint32_t{StepHeader::kHiddenOnLink};
  // Before any layer of the segment writes to its blocks. Steps pass a segment in the order in
  // which they were made, so this is the content that the coordinator meant.
  ops_->CopyBlocks(segment.kv, frame->copies);
  const StepLinks ends = {by_link ? links.in : nullptr, links.out, links.timeout};
  if (header.error_layer == 0) {
    DT_RETURN_IF_ERROR(Compute(segment, streamed, ends, frame, gather, partials));
  }
  AddSegmentTimes(static_cast<uint32_t>(absl::ToInt64Microseconds(absl::Now() - start)), last,
                  frame);
  header.segment = last;
  if (links.out == nullptr || header.hidden_rows == 0) return absl::OkStatus();
  header.flags |= StepHeader::kHiddenOnLink;
  return links.out->Send(int64_t{header.hidden_rows} * row_shape_.hidden_size *
                         static_cast<int64_t>(sizeof(float)));
}

// The first of several segments that were run as one has the time of all.
void ModelRunner::AddSegmentTimes(uint32_t microseconds, uint32_t last, StepFrame* frame) const {
  StepHeader& header = frame->header;
  for (uint32_t i = header.segment; i <= last; ++i) {
    if (frame->segment_us.size() >= kMaxRouteSegments) return;
    frame->segment_us.push_back(i == header.segment ? microseconds : 0);
    header.num_segment_times = static_cast<uint32_t>(frame->segment_us.size());
  }
}

absl::Status ModelRunner::Compute(const BoundSegment& segment, bool streamed,
                                  const StepLinks& links, StepFrame* frame, AllGather* gather,
                                  transport::ComingPartials* partials) {
  StepHeader& header = frame->header;
  FillSequences(*frame);
  StepContext step{.ops = *ops_, .ws = *workspace_};
  step.rows = static_cast<int32_t>(header.num_rows);
  step.sequences = sequences_;
  step.tokens = frame->tokens;
  step.logit_rows = frame->logit_rows;
  step.head_rows = head_rows_;
  step.logits_wanted = logits_wanted_;
  step.x = workspace_->x;
  step.x_rows = static_cast<int32_t>(header.hidden_rows);
  step.gather = gather;
  step.partials = partials;
  if (gather != nullptr) gather->BeginStep(header.step);
  const SegmentVisit visit = {.segment = header.segment,
                              .op_numbers = segment.ops,
                              .came = {header.hidden_rows, header.slot_rows, header.partial_rows},
                              .embeds_in_head = segment.embeds_in_head,
                              .leaves = segment.leaves,
                              .logits = segment.has_lm_head,
                              .streams = streamed,
                              .links = links};
  DT_RETURN_IF_ERROR(ops_->Begin(step, visit));

  if (segment.has_attention) {
    const model::ModelConfig& config = store_->config;
    ops_->FillRopeAngles(step, config.rope_inv_freq, config.rope_attention_factor,
                         workspace_->cos_sin);
    if (!config.rope_inv_freq_local.empty()) {
      ops_->FillRopeAngles(step, config.rope_inv_freq_local, 1.0f, workspace_->cos_sin_local);
    }
  }
  const auto forward = [&step](absl::Span<const BoundLayer> layers) {
    for (const BoundLayer& bound : layers) {
      if (!step.status.ok() || !step.finite.load(std::memory_order_relaxed)) return;
      step.op_numbers = bound.ops;
      step.part = 0;
      bound.layer->Forward(step);
    }
  };
  const auto layers = absl::MakeConstSpan(segment.layers);
  const size_t first = segment.from_tokens && !segment.embeds_in_head ? 1 : 0;
  forward(layers.first(first));
  ops_->RunLayers(step, visit, [&] { forward(layers.subspan(first)); });
  DT_RETURN_IF_ERROR(step.status);
  int32_t not_finite = -1;
  DT_RETURN_IF_ERROR(ops_->Finish(step, visit, &not_finite));
  if (not_finite >= 0) header.error_layer = 1 + static_cast<uint32_t>(not_finite);
  CountRows(segment, step, &header);
  return absl::OkStatus();
}

void ModelRunner::CountRows(const BoundSegment& segment, const StepContext& step,
                            StepHeader* header) const {
  header->hidden_rows = header->slot_rows = header->partial_rows = 0;
  if (header->error_layer != 0) return;
  header->hidden_rows = static_cast<uint32_t>(step.x_rows);
  if (segment.leaves == nullptr) return;
  header->slot_rows = header->hidden_rows;
  header->partial_rows =
      static_cast<uint32_t>(segment.leaves->NumPartialRows(ops_->host().expert_begin, step.x_rows));
}

transport::StepRows ModelRunner::rows(const StepFrame& frame) const {
  const StepHeader& h = frame.header;
  const HostRows& host = ops_->host();
  const size_t hidden = static_cast<size_t>(row_shape_.hidden_size);
  return {.hidden = absl::MakeConstSpan(host.x, h.hidden_rows_in_frame() * hidden),
          .slot_experts =
              absl::MakeConstSpan(host.slot_experts, size_t{h.slot_rows} * row_shape_.experts_used),
          .slot_weights =
              absl::MakeConstSpan(host.slot_weights, size_t{h.slot_rows} * row_shape_.slots()),
          .partials = absl::MakeConstSpan(host.y, h.partial_rows * hidden)};
}

const float* ModelRunner::hidden(int row) const {
  return ops_->host().x + static_cast<int64_t>(row) * row_shape_.hidden_size;
}

float* ModelRunner::logits(int row) const {
  return ops_->host().logits + static_cast<int64_t>(row) * vocab_size();
}

}  // namespace dovetail::worker
