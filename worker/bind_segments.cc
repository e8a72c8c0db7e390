// ModelRunner's segments: each op of the route, or the parts of a layer next to each other, bound
// to its weights as a layer.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/algorithm/container.h"
#include "base/check.h"
#include "model/memory_plan.h"
#include "model/row_parts.h"
#include "worker/bind_moe.h"
#include "worker/layers/attention.h"
#include "worker/layers/embedding.h"
#include "worker/layers/latent_attention.h"
#include "worker/layers/lm_head.h"
#include "worker/layers/mlp.h"
#include "worker/layers/norm.h"
#include "worker/model_runner.h"

namespace dovetail::worker {
namespace {

using model::WeightRole;

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

// The ranges of experts of a layer, in the order of the route.
std::vector<Op> ExpertRangesOf(const Route& route, int32_t layer) {
  std::vector<Op> ranges;
  for (const Segment& segment : route) {
    std::copy_if(segment.ops.begin(), segment.ops.end(), std::back_inserter(ranges),
                 [&](const Op& op) { return op.kind == OpKind::kExperts && op.layer == layer; });
  }
  return ranges;
}

// What a copy of a block copies: the block, or each of its parts.
void AddKvRegions(const kernels::KvCacheView& kv, std::vector<KvRegion>* regions) {
  if (kv.num_blocks == 0) {
    regions->push_back({kv.data, kv.block_bytes});
    return;
  }
  uint8_t* data = kv.data;
  const auto add = [&](int64_t bytes) {
    regions->push_back({data, bytes});
    data += bytes * kv.num_blocks;
  };
  for (int head = 0; head < kv.shape.num_heads; ++head) add(KvPartBytes(kv.type, kv.shape.key_dim));
  if (kv.shape.layout == KvLayout::kLatent) return;
  for (int head = 0; head < kv.shape.num_heads; ++head) {
    add(KvPartBytes(kv.type, kv.shape.value_dim));
  }
}

}  // namespace

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
      bound->embeds_in_head |=
          op.kind == OpKind::kEmbedding && store_->SlotOf(op, WeightRole::kEmbedding).in_head;
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
      const Embedding::Table table = {store_->DataOf(slot), slot.in_head};
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
    AddKvRegions(bound->second, kv_of_segment_);
    return bound->second;
  }
  const KvShape shape = model::KvShapeOf(store_->config, op);
  const KvType type = shape_.KvTypeOf(op.layer);
  const int64_t block_bytes = KvBlockBytes(shape, type);
  const int64_t num_blocks = shape_.num_blocks_in_all();
  const kernels::KvCacheView view = {.data = store_->kv->data() + kv_bytes_bound_,
                                     .block_bytes = block_bytes,
                                     .type = type,
                                     .shape = shape,
                                     .num_blocks = on_device_ ? 0 : num_blocks};
  kv_bytes_bound_ += num_blocks * block_bytes;
  AddKvRegions(view, kv_of_segment_);
  kv_views_.emplace(op.layer, view);
  return view;
}

}  // namespace dovetail::worker
