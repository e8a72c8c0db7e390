#include "worker/model_runner.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"
#include "worker/layers/attention.h"
#include "worker/layers/embedding.h"
#include "worker/layers/lm_head.h"
#include "worker/layers/mlp.h"
#include "worker/layers/moe.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {
namespace {

using model::WeightRole;
using transport::SequenceStep;
using transport::StepFrame;
using transport::StepHeader;

absl::Status CheckRoute(const Route& route, const model::ModelConfig& config,
                        const std::string& worker) {
  std::vector<Op> ops;
  bool mine = false;
  for (const Segment& segment : route) {
    ops.insert(ops.end(), segment.ops.begin(), segment.ops.end());
    mine |= segment.worker == worker;
  }
  if (ops != model::OpsOf(config)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the route's ", ops.size(), " ops are not those of the model, in its order"));
  }
  if (!mine) return absl::InvalidArgumentError(absl::StrCat("no segment is for ", worker));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(
    const transport::WorkerPlan& plan, const std::string& worker,
    std::unique_ptr<WeightStore> store, const kernels::KernelTable* kernels, ThreadPool* pool) {
  DT_RETURN_IF_ERROR(CheckRoute(plan.route, store->config, worker));
  const int32_t vocab_size = store->config.vocab_size;
  if (plan.step_shape.vocab_size != 0 && plan.step_shape.vocab_size != vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("the plan's masks are for ",
                                                   plan.step_shape.vocab_size,
                                                   " tokens, the model has ", vocab_size));
  }
  auto runner = absl::WrapUnique(new ModelRunner());
  runner->shape_ = plan.step_shape;
  runner->kernels_ = kernels;
  runner->pool_ = pool;
  runner->store_ = std::move(store);
  DT_ASSIGN_OR_RETURN(runner->workspace_,
                      Workspace::Create(runner->store_->config, runner->store_->ops,
                                        plan.step_shape, pool->num_threads()));
  runner->sequences_.reserve(plan.step_shape.max_sequences);
  runner->segments_.resize(plan.route.size());
  bool after_norm = false;
  uint32_t first_op = 0;
  for (size_t i = 0; i < plan.route.size(); ++i) {
    const Segment& segment = plan.route[i];
    BoundSegment& bound = runner->segments_[i];
    bound.first_op = first_op;
    bound.from_tokens = first_op == 0;
    bound.after_norm = after_norm;
    first_op += static_cast<uint32_t>(segment.ops.size());
    for (const Op& op : segment.ops) after_norm |= op.kind == OpKind::kNorm;
    bound.mine = segment.worker == worker;
    if (bound.mine) runner->BindSegment(segment, &bound);
  }
  return runner;
}

void ModelRunner::BindSegment(const Segment& segment, BoundSegment* bound) {
  for (const Op& op : segment.ops) {
    bound->has_attention |= op.kind == OpKind::kAttention;
    bound->layers.push_back(BindLayer(op));
  }
}

std::unique_ptr<Layer> ModelRunner::BindLayer(const Op& op) {
  const model::ModelConfig& config = store_->config;
  switch (op.kind) {
    case OpKind::kEmbedding: {
      const model::WeightSlot& slot = store_->SlotOf(op, WeightRole::kEmbedding);
      return std::make_unique<Embedding>(store_->DataOf(slot), slot.type, config.hidden_size,
                                         config.embedding_scale);
    }
    case OpKind::kAttention:
      return BindAttention(op);
    case OpKind::kMlp:
      return config.HasExperts(op.layer) ? BindMoe(op) : BindMlp(op);
    case OpKind::kNorm:
      return std::make_unique<Norm>(BindNorm(op, WeightRole::kOutputNorm));
    case OpKind::kLmHead:
      return std::make_unique<LmHead>(store_->LinearOf(op, WeightRole::kLmHead));
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
  const AttentionWeights weights = {
      .norm = BindNorm(op, WeightRole::kAttentionNorm),
      .q_proj = store_->LinearOf(op, WeightRole::kQ, WeightRole::kQBias),
      .k_proj = store_->LinearOf(op, WeightRole::kK, WeightRole::kKBias),
      .v_proj = store_->LinearOf(op, WeightRole::kV, WeightRole::kVBias),
      .o_proj = store_->LinearOf(op, WeightRole::kO, WeightRole::kOBias),
      .q_norm = BindNorm(op, WeightRole::kQNorm),
      .k_norm = BindNorm(op, WeightRole::kKNorm),
      .post_norm = BindNorm(op, WeightRole::kPostAttentionNorm),
      .sinks = store_->FindVector(op, WeightRole::kSinks)};
  const bool window = config.HasWindow(op.layer);
  const AttentionShape shape = {
      .num_heads = config.num_attention_heads,
      .num_kv_heads = config.num_key_value_heads,
      .head_dim = config.head_dim,
      .rope_dim = config.rope_dim,
      .rope_interleaved = config.rope_layout == model::RopeLayout::kInterleaved,
      .scale = config.attention_scale,
      .window = window ? config.sliding_window : 0,
      .local_rope = window && !config.rope_inv_freq_local.empty()};
  return std::make_unique<Attention>(weights, shape, NextKvView());
}

std::unique_ptr<Layer> ModelRunner::BindMlp(const Op& op) const {
  return std::make_unique<Mlp>(
      MlpWeights{BindNorm(op, WeightRole::kMlpNorm), store_->LinearOf(op, WeightRole::kGate),
                 store_->LinearOf(op, WeightRole::kUp), store_->LinearOf(op, WeightRole::kDown),
                 BindNorm(op, WeightRole::kPostMlpNorm)},
      store_->config.activation);
}

std::unique_ptr<Layer> ModelRunner::BindMoe(const Op& op) const {
  const model::ModelConfig& config = store_->config;
  MoeWeights weights = {
      .norm = BindNorm(op, WeightRole::kMlpNorm),
      .router = store_->LinearOf(op, WeightRole::kRouter, WeightRole::kRouterBias),
      .choice_bias = store_->FindVector(op, WeightRole::kChoiceBias),
      .gate = store_->ExpertsOf(op, WeightRole::kExpertGate, WeightRole::kExpertGateBias),
      .up = store_->ExpertsOf(op, WeightRole::kExpertUp, WeightRole::kExpertUpBias),
      .down = store_->ExpertsOf(op, WeightRole::kExpertDown, WeightRole::kExpertDownBias)};
  if (config.experts.shared_intermediate_size > 0) {
    weights.shared_gate_proj = store_->LinearOf(op, WeightRole::kGate);
    weights.shared_up_proj = store_->LinearOf(op, WeightRole::kUp);
    weights.shared_down_proj = store_->LinearOf(op, WeightRole::kDown);
  }
  if (config.experts.shared_gate) {
    weights.shared_gate = store_->LinearOf(op, WeightRole::kSharedGate);
  }
  DT_CHECK(!config.post_norms);  // no family has both
  return std::make_unique<Moe>(weights, config.experts, config.activation);
}

kernels::KvCacheView ModelRunner::NextKvView() {
  const model::ModelConfig& config = store_->config;
  const int64_t block_bytes = model::KvBytesPerBlockPerLayer(config, shape_.kv_type);
  const int64_t offset = kv_layers_bound_ * shape_.num_kv_blocks * block_bytes;
  ++kv_layers_bound_;
  return {.data = store_->kv->data() + offset,
          .block_bytes = block_bytes,
          .type = shape_.kv_type,
          .num_kv_heads = config.num_key_value_heads,
          .head_dim = config.head_dim};
}

absl::Span<float> ModelRunner::hidden_buffer() {
  return absl::MakeSpan(workspace_->x, static_cast<size_t>(workspace_->x_floats));
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
  const BoundSegment& segment = segments_[h.segment];
  const uint32_t expected = segment.from_tokens || h.error_layer != 0 ? 0
                            : segment.after_norm                      ? h.num_logit_rows
                                                                      : h.num_rows;
  if (h.hidden_rows != expected) {
    return absl::InvalidArgumentError(absl::StrCat("step ", h.step, ", segment ", h.segment,
                                                   ": hidden_rows is ", h.hidden_rows,
                                                   ", expected ", expected));
  }
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
  int32_t row = 0;
  const int32_t* blocks = frame.block_ids.data();
  for (const SequenceStep& s : frame.sequences) {
    sequences_.push_back(
        {.row_begin = row, .num_rows = s.num_rows, .position = s.position, .blocks = blocks});
    row += s.num_rows;
    blocks += s.num_blocks;
  }
}

void ModelRunner::Run(StepFrame* frame) {
  StepHeader& header = frame->header;
  const BoundSegment& segment = segments_[header.segment];
  DT_CHECK(segment.mine);
  if (header.error_layer != 0) return;
  FillSequences(*frame);
  StepContext step{.kernels = *kernels_, .pool = *pool_, .ws = *workspace_};
  step.rows = static_cast<int32_t>(header.num_rows);
  step.sequences = sequences_;
  step.tokens = frame->tokens;
  step.logit_rows = frame->logit_rows;
  step.x = workspace_->x;
  step.x_rows = static_cast<int32_t>(header.hidden_rows);

  if (segment.has_attention) {
    const model::ModelConfig& config = store_->config;
    FillRopeAngles(step, config.rope_inv_freq, config.rope_attention_factor, workspace_->cos_sin);
    if (!config.rope_inv_freq_local.empty()) {
      FillRopeAngles(step, config.rope_inv_freq_local, 1.0f, workspace_->cos_sin_local);
    }
  }
  for (size_t i = 0; i < segment.layers.size(); ++i) {
    segment.layers[i]->Forward(step);
    if (!step.finite.load(std::memory_order_relaxed)) {
      header.error_layer = 1 + segment.first_op + static_cast<uint32_t>(i);
      header.hidden_rows = 0;
      return;
    }
  }
  header.hidden_rows = static_cast<uint32_t>(step.x_rows);
}

absl::Span<const float> ModelRunner::hidden(const StepFrame& frame) const {
  return absl::MakeConstSpan(workspace_->x,
                             static_cast<size_t>(frame.header.hidden_rows) * hidden_size());
}

float* ModelRunner::logits(int row) const {
  return workspace_->logits + static_cast<int64_t>(row) * vocab_size();
}

}  // namespace dovetail::worker
