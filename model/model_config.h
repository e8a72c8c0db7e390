// ModelConfig: what a model is, read from GGUF metadata; Hugging Face's names for the dimensions.
//
// A family (model/arch/<family>.cc) fills it from the file and lists its tensors; nothing else in
// the program looks at architecture names. Immutable after loading; plain data.
#ifndef DOVETAIL_MODEL_MODEL_CONFIG_H_
#define DOVETAIL_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/route.h"
#include "base/weight_type.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

enum class Activation { kSilu };
// How rotary pairs lie in a head. kInterleaved: (0,1), (2,3), ... ("norm" in ggml, what GGUF files
// of the llama architecture have); kHalves: (0, n/2), (1, n/2+1), ... ("neox").
enum class RopeLayout { kInterleaved, kHalves };

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name, or the file's stem
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;
  int32_t max_position_embeddings = 0;  // the file's context_length
  float rms_norm_eps = 1e-5f;
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;  // no output.weight: lm_head is the embedding

  RopeLayout rope_layout = RopeLayout::kInterleaved;
  int32_t rope_dim = 0;  // rotated dimensions of a head (<= head_dim, even)
  // One frequency per pair, [rope_dim / 2], f32 as Hugging Face has it, all scaling (linear, llama3
  // through rope_freqs.weight, YaRN) already applied. angle = position * inv_freq.
  std::vector<float> rope_inv_freq;
  float rope_attention_factor = 1.0f;  // cos and sin are multiplied by it (YaRN)
  float attention_scale = 0.0f;        // scores are multiplied by it: 1 / sqrt(head_dim)

  int64_t parameter_count = 0;  // elements of all tensors
};

// Reads the configuration of any supported family and checks every tensor it needs: all missing,
// mis-shaped, unsupported-type and unexpected tensors are listed in one InvalidArgument status. An
// unsupported architecture is refused by name with the list of supported ones.
absl::StatusOr<ModelConfig> LoadModelConfig(const GgufFile& file);

// The role a tensor has in its module; with the module's Op it names a weight.
enum class WeightRole {
  kEmbedding,
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kO,
  kMlpNorm,
  kGate,
  kUp,
  kDown,
  kOutputNorm,
  kLmHead,
};

// One weight that an op needs: where it is in the file and the shape it must have.
struct WeightSpec {
  WeightRole role = WeightRole::kEmbedding;
  std::string tensor;      // GGUF name: "blk.3.attn_q.weight"
  std::string module;      // Hugging Face module: "model.layers.3.self_attn.q_proj"
  int64_t rows = 0;        // output features (1 for vectors)
  int64_t cols = 0;        // input features
  bool is_vector = false;  // norms: kept as f32
};

// The weights of one op, in the order in which a worker stores them. With tied embeddings kLmHead's
// weight names token_embd.weight.
std::vector<WeightSpec> WeightsOf(const ModelConfig& config, const Op& op);

// All ops of the model in execution order: embedding, then attention and mlp per layer, norm,
// lm_head.
std::vector<Op> OpsOf(const ModelConfig& config);

// "model.layers.3.self_attn", "model.layers.3.mlp", "model.embed_tokens", "model.norm", "lm_head".
std::string ModuleName(const Op& op);

// Architectures that LoadModelConfig accepts, for messages.
std::vector<std::string> SupportedArchitectures();

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_MODEL_CONFIG_H_
