// TreeShape: what a model's module tree depends on: its family's names and how many of what there
// is. Read from a Hugging Face configuration, or from our own of a GGUF file.
//
// Plain data and pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_TREE_SHAPE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_TREE_SHAPE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace dovetail::coordinator::ktransformers {

// How a family's authors named its parts. Empty: it has no such part.
struct FamilyNames {
  absl::string_view model_type;  // Hugging Face's: "deepseek_v3"
  absl::string_view package;     // of its classes: "ktransformers.models.modeling_deepseek_v3"
  absl::string_view prefix;      // of its classes: "DeepseekV3"
  absl::string_view attention = "Attention";  // the class that is there; a kind of Attention
  absl::string_view ffn = "mlp";              // "block_sparse_moe"
  absl::string_view moe_class;                // "MoE"
  absl::string_view gate = "gate";            // the router
  absl::string_view gate_class;               // empty: torch.nn.Linear
  bool gate_first = false;                    // before the experts
  absl::string_view experts_class;            // empty: a ModuleList of expert_class
  absl::string_view expert_class = "MLP";
  std::vector<absl::string_view> expert_linears = {"gate_proj", "up_proj", "down_proj"};
  absl::string_view shared;        // "shared_experts"
  bool attention_rotary = false;   // self_attn.rotary_emb
  bool model_rotary = false;       // model.rotary_emb
  absl::string_view rotary_class;  // of the former where it is another than <prefix>RotaryEmbedding
};

struct TreeShape {
  const FamilyNames* names = nullptr;
  int num_layers = 0;
  int num_experts = 0;
  std::vector<bool> has_experts;  // by layer
  bool shared_experts = false;
  bool shared_gate = false;
  bool latent_attention = false;  // kv_a_proj_with_mqa and kv_b_proj for k_proj and v_proj
  bool query_lora = false;        // q_a_proj and q_b_proj for q_proj
  bool qk_norm = false;
  bool yarn = false;        // of DeepSeek: another class of rotary embedding
  bool post_norms = false;  // of Gemma 3

  // "ktransformers.models.modeling_deepseek_v3.DeepseekV3MoE".
  std::string ClassPath(absl::string_view suffix) const;
};

// The text of a config.json, or of a file that holds one as `config` (as the dumped maps do). What
// kind of model it is says `model_type` or `architectures`, else the keys that are there.
// InvalidArgument: "file: message".
absl::StatusOr<TreeShape> ShapeFromHuggingFace(absl::string_view json, const std::string& file);

absl::StatusOr<TreeShape> ShapeFromModel(const model::ModelConfig& config);

// The module that owns this tensor of a GGUF file: "blk.3.ffn_gate_shexp.weight" belongs to
// "model.layers.3.mlp.shared_experts.gate_proj", and experts, which lie in one tensor, to the first
// of them. Empty: no module does.
std::string ModuleOfTensor(const TreeShape& shape, absl::string_view tensor);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_TREE_SHAPE_H_
