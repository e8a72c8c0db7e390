// The `llama` family: Llama 1 to 3, Mistral, SmolLM and all that GGUF files call so. Pre-norm
// blocks, grouped-query attention with rotary positions, SwiGLU. Files of this architecture have
// the rows of q and k permuted so that rotary pairs are neighbours.
#ifndef DOVETAIL_MODEL_ARCH_LLAMA_H_
#define DOVETAIL_MODEL_ARCH_LLAMA_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/model_config.h"

namespace dovetail::model {

absl::StatusOr<ModelConfig> LoadLlama(const GgufFile& file);
std::vector<WeightSpec> LlamaWeightsOf(const ModelConfig& config, const Op& op);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_LLAMA_H_
