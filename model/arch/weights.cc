#include "model/arch/weights.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::model {
namespace {

// The weights of one layer, added one by one.
class WeightList {
 public:
  explicit WeightList(int32_t layer)
      : blk_(absl::StrCat("blk.", layer, ".")), layer_(absl::StrCat("model.layers.", layer, ".")) {}

  void Matrix(WeightRole role, absl::string_view name, absl::string_view module, int64_t rows,
              int64_t cols) {
    specs_.push_back({role, absl::StrCat(blk_, name, ".weight"), absl::StrCat(layer_, module), rows,
                      cols, /*is_vector=*/false});
  }
  void Vector(WeightRole role, absl::string_view name, absl::string_view module, int64_t cols) {
    specs_.push_back({role, absl::StrCat(blk_, name), absl::StrCat(layer_, module), 1, cols,
                      /*is_vector=*/true});
  }
  void Norm(WeightRole role, absl::string_view name, absl::string_view module, int64_t cols) {
    Vector(role, absl::StrCat(name, ".weight"), module, cols);
  }
  // The last one is of each of so many heads.
  void OfHeads(int32_t count) { specs_.back().experts = count; }
  // The last one is of each expert of the range.
  void OfExperts(int32_t begin, int32_t end) {
    specs_.back().experts = end - begin;
    specs_.back().first_expert = begin;
  }
  // The last one belongs to another op.
  void IsCopy() { specs_.back().is_copy = true; }
  // The last one is a part of its tensor (WeightSpec).
  void PartOfTensor(int64_t first, int64_t stride, bool transposed) {
    specs_.back().tensor_first = first;
    specs_.back().tensor_stride = stride;
    specs_.back().transposed = transposed;
  }

  std::vector<WeightSpec> Take() { return std::move(specs_); }

 private:
  std::string blk_;
  std::string layer_;
  std::vector<WeightSpec> specs_;
};

void AddGatedMlp(WeightList& list, absl::string_view suffix, absl::string_view module,
                 int64_t hidden, int64_t ffn) {
  list.Matrix(WeightRole::kGate, absl::StrCat("ffn_gate", suffix),
              absl::StrCat(module, ".gate_proj"), ffn, hidden);
  list.Matrix(WeightRole::kUp, absl::StrCat("ffn_up", suffix), absl::StrCat(module, ".up_proj"),
              ffn, hidden);
  list.Matrix(WeightRole::kDown, absl::StrCat("ffn_down", suffix),
              absl::StrCat(module, ".down_proj"), hidden, ffn);
}

void AddMlpNorm(WeightList& list, const ModelConfig& config, const TensorNames& names) {
  list.Norm(WeightRole::kMlpNorm, names.mlp_norm,
            config.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm",
            config.hidden_size);
}

void AddRouter(WeightList& list, const ModelConfig& config) {
  const ExpertConfig& experts = config.experts;
  list.Matrix(WeightRole::kRouter, "ffn_gate_inp", "mlp.gate", experts.count, config.hidden_size);
  if (experts.router_bias) {
    list.Vector(WeightRole::kRouterBias, "ffn_gate_inp.bias", "mlp.gate", experts.count);
  }
  if (experts.choice_bias) {
    list.Vector(WeightRole::kChoiceBias, "exp_probs_b.bias", "mlp.gate", experts.count);
  }
}

void AddSharedExperts(WeightList& list, const ModelConfig& config) {
  AddGatedMlp(list, "_shexp", "mlp.shared_experts", config.hidden_size,
              config.experts.shared_intermediate_size);
  if (config.experts.shared_gate) {
    list.Matrix(WeightRole::kSharedGate, "ffn_gate_inp_shexp", "mlp.shared_expert_gate", 1,
                config.hidden_size);
  }
}

void AddExperts(WeightList& list, const ModelConfig& config, const Op& op) {
  const ExpertConfig& experts = config.experts;
  const int64_t hidden = config.hidden_size, ffn = experts.intermediate_size;
  const auto matrix = [&](WeightRole role, WeightRole bias, absl::string_view name,
                          absl::string_view module, int64_t rows, int64_t cols) {
    list.Matrix(role, name, module, rows, cols);
    list.OfExperts(op.expert_begin, op.expert_end);
    if (!experts.biases) return;
    list.Vector(bias, absl::StrCat(name, ".bias"), module, rows);
    list.OfExperts(op.expert_begin, op.expert_end);
  };
  matrix(WeightRole::kExpertGate, WeightRole::kExpertGateBias, "ffn_gate_exps",
         "mlp.experts.gate_proj", ffn, hidden);
  matrix(WeightRole::kExpertUp, WeightRole::kExpertUpBias, "ffn_up_exps", "mlp.experts.up_proj",
         ffn, hidden);
  matrix(WeightRole::kExpertDown, WeightRole::kExpertDownBias, "ffn_down_exps",
         "mlp.experts.down_proj", hidden, ffn);
}

// What a head makes of the latent vector: two tensors, or one that holds for each head the rows of
// its key and then those of its value.
void AddLatentHeads(WeightList& list, const ModelConfig& config) {
  const LatentConfig& latent = config.latent;
  const int64_t rank = latent.kv_lora_rank, nope = latent.nope_dim, value = latent.v_head_dim;
  const bool merged = latent.merged_kv_b;
  list.Matrix(WeightRole::kKB, merged ? "attn_kv_b" : "attn_k_b", "self_attn.kv_b_proj", rank,
              nope);
  list.OfHeads(config.num_attention_heads);
  if (merged) list.PartOfTensor(0, nope + value, /*transposed=*/true);
  list.Matrix(WeightRole::kVB, merged ? "attn_kv_b" : "attn_v_b", "self_attn.kv_b_proj", value,
              rank);
  list.OfHeads(config.num_attention_heads);
  if (merged) list.PartOfTensor(nope, nope + value, /*transposed=*/false);
}

std::vector<WeightSpec> LatentAttentionWeights(const ModelConfig& config, int32_t layer) {
  const LatentConfig& latent = config.latent;
  const int64_t hidden = config.hidden_size, heads = config.num_attention_heads;
  const int64_t q = heads * config.head_dim;
  WeightList list(layer);
  list.Norm(WeightRole::kAttentionNorm, "attn_norm", "input_layernorm", hidden);
  if (latent.q_lora_rank == 0) {
    list.Matrix(WeightRole::kQ, "attn_q", "self_attn.q_proj", q, hidden);
  } else {
    list.Matrix(WeightRole::kQA, "attn_q_a", "self_attn.q_a_proj", latent.q_lora_rank, hidden);
    list.Norm(WeightRole::kQANorm, "attn_q_a_norm", "self_attn.q_a_layernorm", latent.q_lora_rank);
    list.Matrix(WeightRole::kQ, "attn_q_b", "self_attn.q_b_proj", q, latent.q_lora_rank);
  }
  list.Matrix(WeightRole::kKvA, "attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa",
              latent.kv_lora_rank + config.rope_dim, hidden);
  list.Norm(WeightRole::kKvANorm, "attn_kv_a_norm", "self_attn.kv_a_layernorm",
            latent.kv_lora_rank);
  AddLatentHeads(list, config);
  list.Matrix(WeightRole::kO, "attn_output", "self_attn.o_proj", hidden, heads * latent.v_head_dim);
  return list.Take();
}

}  // namespace

std::vector<WeightSpec> AttentionWeights(const ModelConfig& config, int32_t layer) {
  if (config.HasLatentAttention()) return LatentAttentionWeights(config, layer);
  const int64_t hidden = config.hidden_size;
  const int64_t q = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_key_value_heads} * config.head_dim;
  const bool per_head = config.qk_norm == QkNorm::kPerHead;
  WeightList list(layer);
  const auto matrix = [&](WeightRole role, bool has_bias, WeightRole bias, absl::string_view name,
                          absl::string_view module, int64_t rows, int64_t cols) {
    list.Matrix(role, name, module, rows, cols);
    if (has_bias) list.Vector(bias, absl::StrCat(name, ".bias"), module, rows);
  };
  list.Norm(WeightRole::kAttentionNorm, "attn_norm", "input_layernorm", hidden);
  matrix(WeightRole::kQ, config.qkv_bias, WeightRole::kQBias, "attn_q", "self_attn.q_proj", q,
         hidden);
  matrix(WeightRole::kK, config.qkv_bias, WeightRole::kKBias, "attn_k", "self_attn.k_proj", kv,
         hidden);
  matrix(WeightRole::kV, config.qkv_bias, WeightRole::kVBias, "attn_v", "self_attn.v_proj", kv,
         hidden);
  if (config.qk_norm != QkNorm::kNone) {
    list.Norm(WeightRole::kQNorm, "attn_q_norm", "self_attn.q_norm",
              per_head ? config.head_dim : q);
    list.Norm(WeightRole::kKNorm, "attn_k_norm", "self_attn.k_norm",
              per_head ? config.head_dim : kv);
  }
  if (config.attention_sinks) {
    list.Norm(WeightRole::kSinks, "attn_sinks", "self_attn.sinks", config.num_attention_heads);
  }
  matrix(WeightRole::kO, config.o_bias, WeightRole::kOBias, "attn_output", "self_attn.o_proj",
         hidden, q);
  if (config.post_norms) {
    list.Norm(WeightRole::kPostAttentionNorm, "post_attention_norm", "post_attention_layernorm",
              hidden);
  }
  return list.Take();
}

std::vector<WeightSpec> MlpWeights(const ModelConfig& config, int32_t layer,
                                   const TensorNames& names) {
  WeightList list(layer);
  AddMlpNorm(list, config, names);
  AddGatedMlp(list, "", "mlp", config.hidden_size, config.intermediate_size);
  if (config.post_norms) {
    list.Norm(WeightRole::kPostMlpNorm, "post_ffw_norm", "post_feedforward_layernorm",
              config.hidden_size);
  }
  return list.Take();
}

std::vector<WeightSpec> ExpertPartWeights(const ModelConfig& config, const Op& op,
                                          const TensorNames& names) {
  WeightList list(op.layer);
  AddMlpNorm(list, config, names);
  if (op.kind == OpKind::kRouter) {
    AddRouter(list, config);
    return list.Take();
  }
  list.IsCopy();
  if (op.kind == OpKind::kSharedExperts) {
    AddSharedExperts(list, config);
  } else {
    AddExperts(list, config, op);
  }
  return list.Take();
}

std::vector<WeightSpec> DecoderWeights(const ModelConfig& config, const Op& op,
                                       const TensorNames& names) {
  const int64_t hidden = config.hidden_size, vocab = config.vocab_size;
  const std::string module = ModuleName(op);
  switch (op.kind) {
    case OpKind::kEmbedding:
      return {{WeightRole::kEmbedding, kTokenEmbedding, module, vocab, hidden}};
    case OpKind::kAttention:
      return AttentionWeights(config, op.layer);
    case OpKind::kMlp:
      return MlpWeights(config, op.layer, names);
    case OpKind::kRouter:
    case OpKind::kSharedExperts:
    case OpKind::kExperts:
      return ExpertPartWeights(config, op, names);
    case OpKind::kNorm:
      return {{WeightRole::kOutputNorm, "output_norm.weight", module, 1, hidden, true}};
    case OpKind::kLmHead:
      return {{WeightRole::kLmHead, config.tie_word_embeddings ? kTokenEmbedding : kOutput, module,
               vocab, hidden}};
  }
  DT_CHECK(false);
}

std::vector<WeightSpec> DecoderWeights(const ModelConfig& config, const Op& op) {
  return DecoderWeights(config, op, {});
}

void AddScales(const ModelConfig& config, const Op& op, std::vector<WeightSpec>* specs) {
  if (config.scaled_weights.empty()) return;
  std::set<std::string> added;  // two weights may be parts of one tensor
  for (size_t i = 0, count = specs->size(); i < count; ++i) {
    const WeightSpec& matrix = (*specs)[i];
    const std::string name = ScaleTensor(matrix.tensor);
    if (config.scaled_weights.count(matrix.tensor) == 0 || !added.insert(name).second) continue;
    WeightSpec scale = {WeightRole::kScale, name, matrix.module, 1, 1, /*is_vector=*/true};
    if (op.kind == OpKind::kExperts) {
      scale.experts = matrix.experts;
      scale.first_expert = matrix.first_expert;
    }
    specs->push_back(std::move(scale));
  }
}

}  // namespace dovetail::model
