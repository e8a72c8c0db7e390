// The weights of a decoder's ops, as its configuration says: which tensors there are, what they are
// called and what shape they have. Pure functions.
#ifndef DOVETAIL_MODEL_ARCH_WEIGHTS_H_
#define DOVETAIL_MODEL_ARCH_WEIGHTS_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace dovetail::model {

inline constexpr char kTokenEmbedding[] = "token_embd.weight";
inline constexpr char kOutput[] = "output.weight";

// Names that differ between families.
struct TensorNames {
  absl::string_view mlp_norm = "ffn_norm";
};

std::vector<WeightSpec> AttentionWeights(const ModelConfig& config, int32_t layer);
// Of a dense layer.
std::vector<WeightSpec> MlpWeights(const ModelConfig& config, int32_t layer,
                                   const TensorNames& names);
// Of a router, of shared experts, of a range of experts.
std::vector<WeightSpec> ExpertPartWeights(const ModelConfig& config, const Op& op,
                                          const TensorNames& names);

// All ops; what most families are.
std::vector<WeightSpec> DecoderWeights(const ModelConfig& config, const Op& op,
                                       const TensorNames& names);
std::vector<WeightSpec> DecoderWeights(const ModelConfig& config, const Op& op);

// Adds the scales of those matrices of `op` that have one (ModelConfig::scaled_weights).
void AddScales(const ModelConfig& config, const Op& op, std::vector<WeightSpec>* specs);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_WEIGHTS_H_
