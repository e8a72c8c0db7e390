// ModelConfig: what a model is, read from GGUF metadata; Hugging Face's names for the dimensions.
//
// A family (model/arch/<family>.cc) fills it from the file and lists its tensors; nothing else in
// the program looks at architecture names. Immutable after loading; plain data.
#ifndef DOVETAIL_MODEL_MODEL_CONFIG_H_
#define DOVETAIL_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/kv_cache.h"
#include "base/route.h"
#include "base/weight_type.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

// What a gate becomes before it meets its up (kernels/ops.h has the formulas).
enum class Activation { kSilu, kGelu, kSwigluOai };
// How rotary pairs lie in a head. kInterleaved: (0,1), (2,3), ... ("norm" in ggml, what GGUF files
// of the llama architecture have); kHalves: (0, n/2), (1, n/2+1), ... ("neox").
enum class RopeLayout { kInterleaved, kHalves };
// RMS norms of queries and keys before they are rotated: none, of each head by itself with one
// weight for all, or of a token's whole row.
enum class QkNorm { kNone, kPerHead, kWholeRow };
// How an expert's score comes from the router's logits. kSoftmaxOfChosen: experts are chosen by
// their logits and the softmax is over the chosen ones alone.
enum class RouterScore { kSoftmax, kSigmoid, kSoftmaxOfChosen };
// What makes one vector of a text's: none of them, the mean of all tokens', the first's, the
// last's; kRank: none, the model scores pairs of texts. GGUF's numbers.
enum class Pooling { kNone = 0, kMean = 1, kCls = 2, kLast = 3, kRank = 4 };
// What stands for a group of experts where groups are chosen first: its best score (DeepSeek-V2),
// or the sum of its two best (V3).
enum class GroupScore { kMax, kSumOfTwo };

// The experts of a mixture; all layers from `first_layer` on have them.
struct ExpertConfig {
  int32_t count = 0;     // 0: every layer is dense
  int32_t num_used = 0;  // per token
  int32_t intermediate_size = 0;
  int32_t shared_intermediate_size = 0;  // of the shared expert that every token uses; 0: none
  bool shared_gate = false;              // it is weighted by sigmoid(its own row of weights . x)
  int32_t first_layer = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool normalise = false;    // the chosen weights are divided by their sum
  float scale = 1.0f;        // and then multiplied by this
  bool choice_bias = false;  // a bias per expert that counts in the choice, not in the weight
  int32_t num_groups = 1;    // a choice among all experts of the `groups_used` best groups
  int32_t groups_used = 1;
  GroupScore group_score = GroupScore::kSumOfTwo;
  bool router_bias = false;  // a bias of the logits
  bool biases = false;       // of the experts' own matrices
};

// Multi-head latent attention: keys and values of all heads are made from one short vector per
// token, and the cache holds that vector with the rotated part of the key.
struct LatentConfig {
  int32_t kv_lora_rank = 0;  // of that vector; 0: the model has ordinary attention
  int32_t q_lora_rank = 0;   // of the vector that queries are made from; 0: from the hidden state
  int32_t nope_dim = 0;      // of a head's query and key: what is not rotated
  int32_t v_head_dim = 0;
  float norm_eps = 1e-6f;    // of the norms of the two vectors, whatever rms_norm_eps is
  bool merged_kv_b = false;  // one tensor attn_kv_b, as files before 2025 have it
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name, or the file's stem
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;  // of queries and keys; of values too, but for latent attention
  LatentConfig latent;
  int32_t max_position_embeddings = 0;  // the file's context_length
  float rms_norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;  // no output.weight: lm_head is the embedding
  float embedding_scale = 1.0f;      // embeddings are multiplied by it
  // Norms of what attention and mlp make, before it is added to the residual stream.
  bool post_norms = false;
  std::optional<Pooling> pooling;  // of models that were made for embeddings
  int32_t num_nextn_layers = 0;    // blocks after the last for multi-token prediction: not decoded
  ExpertConfig experts;

  // Matrices with a factor of their own (NVFP4): "blk.0.attn_q.weight" if the file has
  // "blk.0.attn_q.scale", one f32, or one per expert.
  std::set<std::string> scaled_weights;

  bool qkv_bias = false;
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  bool attention_sinks = false;  // a learnt score per head that takes part in every softmax
  // A token sees itself and the sliding_window - 1 before it; 0: all. Every
  // full_attention_interval-th layer sees all: layers n - 1, 2n - 1, ...; 0: no layer does.
  int32_t sliding_window = 0;
  int32_t full_attention_interval = 0;

  RopeLayout rope_layout = RopeLayout::kInterleaved;
  int32_t rope_dim = 0;  // rotated dimensions of a head (<= head_dim, even)
  // One frequency per pair, [rope_dim / 2], f32 as Hugging Face has it, all scaling (linear, llama3
  // through rope_freqs.weight, YaRN) already applied. angle = position * inv_freq.
  std::vector<float> rope_inv_freq;
  float rope_attention_factor = 1.0f;  // cos and sin are multiplied by it (YaRN)
  // Of layers with a sliding window, where they differ (Gemma 3); never scaled.
  std::vector<float> rope_inv_freq_local;
  float attention_scale = 0.0f;  // scores are multiplied by it: 1 / sqrt(head_dim)

  int64_t parameter_count = 0;  // elements of all tensors

  bool HasLatentAttention() const { return latent.kv_lora_rank > 0; }
  KvShape kv_shape() const {
    if (!HasLatentAttention()) {
      return {KvLayout::kHeads, num_key_value_heads, head_dim, head_dim};
    }
    return {KvLayout::kLatent, 1, latent.kv_lora_rank + rope_dim, latent.kv_lora_rank};
  }
  bool HasExperts(int32_t layer) const { return experts.count > 0 && layer >= experts.first_layer; }
  bool HasWindow(int32_t layer) const {
    return sliding_window > 0 &&
           (full_attention_interval == 0 || (layer + 1) % full_attention_interval != 0);
  }
};

// Reads the configuration of any supported family and checks every tensor it needs: all missing,
// mis-shaped, unsupported-type and unexpected tensors are listed in one InvalidArgument status. An
// unsupported architecture is refused by name with the list of supported ones.
absl::StatusOr<ModelConfig> LoadModelConfig(const GgufFile& file);

struct ModelFile {
  std::unique_ptr<GgufFile> file;
  ModelConfig config;
};
// Opens a model and reads its configuration. Of a split one that is not all there, the missing and
// unreadable shards and what is wrong with the rest are one status.
absl::StatusOr<ModelFile> OpenModelFile(const std::string& path);

// The role a tensor has in its module; with the module's Op it names a weight.
enum class WeightRole {
  kEmbedding,
  kAttentionNorm,
  kQ,
  kQBias,
  kQNorm,
  kK,
  kKBias,
  kKNorm,
  kV,
  kVBias,
  kSinks,
  kQA,
  kQANorm,
  kKvA,
  kKvANorm,
  kKB,  // of each head: from a key's part that is not rotated to the latent vector
  kVB,  // of each head: from the latent vector to its value
  kO,
  kOBias,
  kPostAttentionNorm,
  kMlpNorm,
  kGate,  // of a dense layer, or of the shared expert
  kUp,
  kDown,
  kSharedGate,
  kRouter,
  kRouterBias,
  kChoiceBias,
  kExpertGate,
  kExpertGateBias,
  kExpertUp,
  kExpertUpBias,
  kExpertDown,
  kExpertDownBias,
  kPostMlpNorm,
  kOutputNorm,
  kLmHead,
  kScale,  // of the matrix that ScaleTensor names it for; an op may have several
};

// One weight that an op needs: where it is in the file and the shape it must have.
struct WeightSpec {
  WeightRole role = WeightRole::kEmbedding;
  std::string tensor;      // GGUF name: "blk.3.attn_q.weight"
  std::string module;      // Hugging Face module: "model.layers.3.self_attn.q_proj"
  int64_t rows = 0;        // output features (1 for vectors)
  int64_t cols = 0;        // input features
  bool is_vector = false;  // norms, biases and scales: kept as f32
  // Of a layer's experts, or heads: so many of these, one after another, the first of them that of
  // expert `first_expert`.
  int64_t experts = 0;
  int64_t first_expert = 0;
  // The norm before experts: each part of a layer computes it for itself, and the router is who
  // owns it. Others have a copy, unless the worker has the owner as well.
  bool is_copy = false;

  // Where the tensor holds more than this weight, two weights or rows that other workers have: of
  // each expert's tensor_stride stored rows it is the stored_rows() from tensor_first on. 0: the
  // tensor is this weight.
  int64_t tensor_stride = 0;
  int64_t tensor_first = 0;
  bool transposed = false;  // the stored rows are its columns
  int64_t stored_rows() const { return transposed ? cols : rows; }
  int64_t stored_cols() const { return transposed ? rows : cols; }
};

// "blk.0.attn_q.scale" for "blk.0.attn_q.weight": an f32 that the whole product is multiplied by;
// for a matrix of each expert, one f32 each.
std::string ScaleTensor(absl::string_view tensor);

// The weights of one op, in the order in which a worker stores them. With tied embeddings kLmHead's
// weight names token_embd.weight.
std::vector<WeightSpec> WeightsOf(const ModelConfig& config, const Op& op);

// All ops of the model in execution order: embedding; per layer attention and mlp, or, with
// experts, attention, router, shared experts (if any) and all experts in one op; norm, lm_head.
std::vector<Op> OpsOf(const ModelConfig& config);

// InvalidArgument unless `ops` are those of OpsOf in that order, the experts of a layer in one or
// more ranges.
absl::Status CheckOps(const ModelConfig& config, absl::Span<const Op> ops);

// "model.layers.3.self_attn", "model.layers.3.mlp", "model.embed_tokens", "model.norm", "lm_head";
// "model.layers.3.mlp.gate", "model.layers.3.mlp.shared_experts",
// "model.layers.3.mlp.experts[0-31]".
std::string ModuleName(const Op& op);

// Architectures that LoadModelConfig accepts, for messages.
std::vector<std::string> SupportedArchitectures();

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_MODEL_CONFIG_H_
