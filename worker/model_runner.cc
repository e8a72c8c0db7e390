#include "worker/model_runner.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"
#include "model/row_parts.h"
#include "worker/bind_moe.h"
#include "worker/cpu/cpu_ops.h"
#include "worker/device/device_ops.h"
#include "worker/layers/attention.h"
#include "worker/layers/embedding.h"
#include "worker/layers/latent_attention.h"
#include "worker/layers/lm_head.h"
#include "worker/layers/mlp.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {
namespace {

using model::WeightRole;
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

// The number of `op` among the model's ops; ranges of experts have that of the layer's experts.
uint32_t IndexOf(const std::vector<Op>& model_ops, const Op& op) {
  const auto at = std::find_if(model_ops.begin(), model_ops.end(), [&](const Op& other) {
    return other.kind == op.kind && other.layer == op.layer;
  });
  DT_CHECK(at != model_ops.end());
  return static_cast<uint32_t>(at - model_ops.begin());
}

const float* FirstOf(const float* vector, int64_t first) {
  return vector == nullptr ? nullptr : vector + first;
}

// One range with the last one where it follows.
void AppendRange(int64_t first, int64_t count, std::vector<Range>* ranges) {
  const bool follows = !ranges->empty() && ranges->back().end == first;
  if (!follows) ranges->push_back({first, first});
  ranges->back().end += count;
}

// The ranges of experts of a layer, in the order of the route.
std::vector<Op> ExpertRangesOf(const Route& route, int32_t layer) {
  std::vector<Op> ranges;
  for (const Segment& segment : route) {
    std::copy_if(segment.ops.begin(), segment.ops.end(), std::back_inserter(ranges),
                 [&](const Op& op) { return op.kind == OpKind::kExperts && op.layer == layer; });
  }
  return ranges;
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

void ModelRunner::BindStreamed(std::vector<std::unique_ptr<PeerWeights>> peers) {
  DT_CHECK_EQ(peers.size(), streamed_workers_.size());
  peers_ = std::move(peers);
  const std::vector<bool> streamed = StreamedSegments(route_, worker_);
  for (size_t i = 0; i < route_.size(); ++i) {
    if (!RunsAlone(i)) continue;
    StreamedRun run;
    std::vector<Op> ops = route_[i].ops;
    size_t last = i;
    for (size_t next = i + 1; next < route_.size() && (streamed[next] || RunsAlone(next)); ++next) {
      ops.insert(ops.end(), route_[next].ops.begin(), route_[next].ops.end());
      last = next;
    }
    if (last == i) continue;
    run.last = static_cast<uint32_t>(last);
    run.bound.mine = true;
    run.bound.from_tokens = i == 0;
    kv_of_segment_ = &run.bound.kv;
    BindSegment(ops, &run.bound);
    streamed_runs_.emplace(static_cast<uint32_t>(i), std::move(run));
    i = last;
  }
}

const WeightStore* ModelRunner::FindPeerOf(const Op& experts) const {
  for (const Segment& segment : route_) {
    if (segment.worker == worker_ || !absl::c_linear_search(segment.ops, experts)) continue;
    const auto peer = absl::c_find(streamed_workers_, segment.worker);
    DT_CHECK(peer != streamed_workers_.end());
    return &peers_[peer - streamed_workers_.begin()]->store();
  }
  return nullptr;
}

void ModelRunner::BindSegment(const std::vector<Op>& ops, BoundSegment* bound) {
  const std::vector<Op> model_ops = model::OpsOf(store_->config);
  for (size_t i = 0; i < ops.size();) {
    const Op& op = ops[i];
    BoundLayer layer;
    if (IsExpertPart(op.kind)) {
      size_t end = i;
      while (end < ops.size() && IsExpertPart(ops[end].kind) && ops[end].layer == op.layer) {
        layer.ops.push_back(IndexOf(model_ops, ops[end++]));
      }
      std::vector<Op> ranges = ExpertRangesOf(route_, op.layer);
      for (Op& range : ranges) range.rows = op.rows;  // shared by the same workers, if by any
      auto moe = BindMoe(ops_.get(), *store_, absl::MakeConstSpan(ops).subspan(i, end - i), ranges,
                         [this](const Op& experts) { return FindPeerOf(experts); });
      if (i == 0 && op.kind != OpKind::kRouter) bound->enters = moe.get();
      if (!moe->ends_layer()) bound->leaves = moe.get();
      layer.layer = std::move(moe);
      i = end;
    } else {
      bound->has_attention |= op.kind == OpKind::kAttention;
      bound->has_lm_head |= op.kind == OpKind::kLmHead;
      layer.ops = {IndexOf(model_ops, op)};
      layer.layer = BindLayer(op);
      ++i;
    }
    bound->ops.insert(bound->ops.end(), layer.ops.begin(), layer.ops.end());
    bound->layers.push_back(std::move(layer));
  }
}

std::unique_ptr<Layer> ModelRunner::BindLayer(const Op& op) {
  const model::ModelConfig& config = store_->config;
  switch (op.kind) {
    case OpKind::kEmbedding: {
      const model::WeightSlot& slot = store_->SlotOf(op, WeightRole::kEmbedding);
      const uint8_t* const head = store_->FindHeadOf(slot);
      const Embedding::Table table = {head != nullptr ? head : store_->DataOf(slot),
                                      head != nullptr};
      return std::make_unique<Embedding>(table, slot.type, config.hidden_size,
                                         config.embedding_scale);
    }
    case OpKind::kAttention:
      return config.HasLatentAttention() ? BindLatentAttention(op) : BindAttention(op);
    case OpKind::kMlp:
      return BindMlp(op);
    case OpKind::kNorm:
      return std::make_unique<Norm>(BindNorm(op, WeightRole::kOutputNorm));
    case OpKind::kLmHead:
      return std::make_unique<LmHead>(
          store_->LinearOf(op, WeightRole::kLmHead), config.vocab_size,
          store_->ColumnsOf(op, WeightStore::Columns::kInner, WeightRole::kLmHead));
    case OpKind::kRouter:
    case OpKind::kSharedExperts:
    case OpKind::kExperts:
      break;  // BindMoe
  }
  DT_CHECK(false);
}

RmsNorm ModelRunner::BindNorm(const Op& op, WeightRole role) const {
  const model::WeightSlot* slot = store_->FindSlot(op, role);
  if (slot == nullptr) return {};
  return {store_->VectorOf(op, role), static_cast<int32_t>(slot->spec.cols),
          store_->config.rms_norm_eps};
}

std::unique_ptr<Layer> ModelRunner::BindAttention(const Op& op) {
  const model::ModelConfig& config = store_->config;
  const MemberColumns inner = store_->ColumnsOf(op, WeightStore::Columns::kInner, WeightRole::kO);
  const AttentionWeights weights = {
      .norm = BindNorm(op, WeightRole::kAttentionNorm),
      .q_proj = store_->LinearOf(op, WeightRole::kQ, WeightRole::kQBias),
      .k_proj = store_->LinearOf(op, WeightRole::kK, WeightRole::kKBias),
      .v_proj = store_->LinearOf(op, WeightRole::kV, WeightRole::kVBias),
      .o_proj = store_->LinearOf(op, WeightRole::kO, WeightRole::kOBias),
      .q_norm = BindNorm(op, WeightRole::kQNorm),
      .k_norm = BindNorm(op, WeightRole::kKNorm),
      .post_norm = BindNorm(op, WeightRole::kPostAttentionNorm),
      .sinks =
          FirstOf(store_->FindVector(op, WeightRole::kSinks), inner.begin() / config.head_dim)};
  const bool window = config.HasWindow(op.layer);
  const AttentionShape shape = {
      .num_heads = weights.q_proj.out_features / config.head_dim,
      .num_kv_heads = weights.k_proj.out_features / config.head_dim,
      .head_dim = config.head_dim,
      .rope_dim = config.rope_dim,
      .rope_interleaved = config.rope_layout == model::RopeLayout::kInterleaved,
      .scale = config.attention_scale,
      .window = window ? config.sliding_window : 0,
      .local_rope = window && !config.rope_inv_freq_local.empty()};
  return std::make_unique<Attention>(
      weights, shape, KvViewOf(op), inner,
      store_->ColumnsOf(op, WeightStore::Columns::kOuter, WeightRole::kO));
}

std::unique_ptr<Layer> ModelRunner::BindLatentAttention(const Op& op) {
  const model::ModelConfig& config = store_->config;
  const auto norm = [&](WeightRole role) {
    RmsNorm bound = BindNorm(op, role);
    bound.eps = config.latent.norm_eps;
    return bound;
  };
  LatentAttentionWeights weights = {.norm = BindNorm(op, WeightRole::kAttentionNorm),
                                    .q_a_norm = norm(WeightRole::kQANorm),
                                    .q_proj = store_->LinearOf(op, WeightRole::kQ),
                                    .kv_a_proj = store_->LinearOf(op, WeightRole::kKvA),
                                    .kv_a_norm = norm(WeightRole::kKvANorm),
                                    .k_b_proj = store_->MatricesOf(op, WeightRole::kKB),
                                    .v_b_proj = store_->MatricesOf(op, WeightRole::kVB),
                                    .o_proj = store_->LinearOf(op, WeightRole::kO)};
  if (config.latent.q_lora_rank > 0) weights.q_a_proj = store_->LinearOf(op, WeightRole::kQA);
  const LatentAttentionShape shape = {
      .num_heads = config.num_attention_heads,
      .nope_dim = config.latent.nope_dim,
      .rope_dim = config.rope_dim,
      .v_head_dim = config.latent.v_head_dim,
      .tile_rows = model::kLatentTileRows,
      .rope_interleaved = config.rope_layout == model::RopeLayout::kInterleaved,
      .scale = config.attention_scale};
  return std::make_unique<LatentAttention>(weights, shape, KvViewOf(op));
}

std::unique_ptr<Layer> ModelRunner::BindMlp(const Op& op) const {
  return std::make_unique<Mlp>(
      MlpWeights{BindNorm(op, WeightRole::kMlpNorm), store_->LinearOf(op, WeightRole::kGate),
                 store_->LinearOf(op, WeightRole::kUp), store_->LinearOf(op, WeightRole::kDown),
                 BindNorm(op, WeightRole::kPostMlpNorm)},
      store_->config.activation,
      store_->ColumnsOf(op, WeightStore::Columns::kInner, WeightRole::kDown),
      store_->ColumnsOf(op, WeightStore::Columns::kOuter, WeightRole::kDown));
}

kernels::KvCacheView ModelRunner::KvViewOf(const Op& op) {
  if (const auto bound = kv_views_.find(op.layer); bound != kv_views_.end()) {
    kv_of_segment_->push_back({bound->second.data, bound->second.block_bytes});
    return bound->second;
  }
  const KvShape shape = model::KvShapeOf(store_->config, op);
  const KvType type = shape_.KvTypeOf(op.layer);
  const int64_t block_bytes = KvBlockBytes(shape, type);
  const int64_t offset = kv_bytes_bound_;
  kv_bytes_bound_ += shape_.num_blocks_in_all() * block_bytes;
  kv_of_segment_->push_back({store_->kv->data() + offset, block_bytes});
  const kernels::KvCacheView view = {.data = store_->kv->data() + offset,
                                     .block_bytes = block_bytes,
                                     .type = type,
                                     .shape = shape};
  kv_views_.emplace(op.layer, view);
  return view;
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

absl::Status ModelRunner::Run(StepFrame* frame, AllGather* gather, const StepLinks& links) {
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
  if (header.error_layer == 0) DT_RETURN_IF_ERROR(Compute(segment, streamed, ends, frame, gather));
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
                                  const StepLinks& links, StepFrame* frame, AllGather* gather) {
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
  if (gather != nullptr) gather->BeginStep(header.step);
  DT_RETURN_IF_ERROR(
      ops_->Begin(step, {header.hidden_rows, header.slot_rows, header.partial_rows}, links));

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
  // The embedding apart: tokens may be looked up by the host.
  const auto layers = absl::MakeConstSpan(segment.layers);
  const size_t first = segment.from_tokens ? 1 : 0;
  forward(layers.first(first));
  const auto rest = [&] { forward(layers.subspan(first)); };
  if (streamed) {
    rest();  // uploads go on meanwhile, of which a device takes nothing down
  } else {
    ops_->RunLayers(step, header.segment, rest);
  }
  DT_RETURN_IF_ERROR(step.status);
  const int64_t slot_rows = segment.leaves == nullptr ? 0 : step.x_rows;
  int32_t not_finite = -1;
  DT_RETURN_IF_ERROR(
      ops_->Finish(step, segment.ops, slot_rows, segment.has_lm_head, links, &not_finite));
  if (not_finite >= 0) header.error_layer = 1 + static_cast<uint32_t>(not_finite);
  return FetchRows(segment, step, &header);
}

absl::Status ModelRunner::FetchRows(const BoundSegment& segment, const StepContext& step,
                                    StepHeader* header) {
  header->hidden_rows = header->slot_rows = header->partial_rows = 0;
  if (header->error_layer != 0) return absl::OkStatus();
  header->hidden_rows = static_cast<uint32_t>(step.x_rows);
  if (segment.leaves == nullptr) return absl::OkStatus();
  header->slot_rows = header->hidden_rows;
  const int64_t rows = segment.leaves->NumPartialRows(ops_->host().expert_begin, step.x_rows);
  header->partial_rows = static_cast<uint32_t>(rows);
  return ops_->FetchPartials(rows);
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
