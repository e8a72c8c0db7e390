#include "coordinator/placement/ktransformers/builtin_tree.h"

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr absl::string_view kModule = "torch.nn.modules.module.Module";

class TreeMaker {
 public:
  explicit TreeMaker(const TreeShape& shape) : shape_(shape), names_(*shape.names) {}

  ModuleTree Make() && {
    const std::string pretrained = shape_.ClassPath("PreTrainedModel");
    const std::vector<std::string> bases = {
        pretrained, "transformers.modeling_utils.PreTrainedModel", std::string(kModule)};
    Add("", builder_.AddClass(shape_.ClassPath("ForCausalLM"), bases));
    Add("model", builder_.AddClass(shape_.ClassPath("Model"), bases));
    Add("model.embed_tokens", Torch("sparse.Embedding"))->owns_weights = true;
    Add("model.layers", Torch("container.ModuleList"));
    for (int layer = 0; layer < shape_.num_layers; ++layer) AddLayer(layer);
    AddNorm("model.norm");
    if (names_.model_rotary) Add("model.rotary_emb", Own("RotaryEmbedding"));
    AddLinear("lm_head");
    ModuleTree tree = std::move(builder_).Finish();
    tree.by_last_names = true;
    return tree;
  }

 private:
  int Own(absl::string_view suffix, std::vector<std::string> bases = {}) {
    bases.emplace_back(kModule);
    return builder_.AddClass(shape_.ClassPath(suffix), std::move(bases));
  }
  int Torch(absl::string_view name) {
    return builder_.AddClass(absl::StrCat("torch.nn.modules.", name), {std::string(kModule)});
  }

  Module* Add(absl::string_view name, int class_index) {
    absl::StatusOr<Module*> module = builder_.AddModule(name, class_index);
    DT_CHECK(module.ok());  // we name them in order
    return *module;
  }
  void AddLinear(absl::string_view name) { Add(name, Torch("linear.Linear"))->owns_weights = true; }
  void AddNorm(absl::string_view name) { Add(name, Own("RMSNorm"))->owns_weights = true; }

  void AddLayer(int layer) {
    const std::string at = absl::StrCat("model.layers.", layer);
    Add(at, Own("DecoderLayer"));
    AddAttention(at + ".self_attn");
    if (shape_.has_experts[layer]) {
      AddMoe(absl::StrCat(at, ".", names_.ffn));
    } else {
      AddMlp(at + ".mlp", "MLP");
    }
    AddNorm(at + ".input_layernorm");
    AddNorm(at + ".post_attention_layernorm");
    if (!shape_.post_norms) return;
    AddNorm(at + ".pre_feedforward_layernorm");
    AddNorm(at + ".post_feedforward_layernorm");
  }

  void AddAttention(const std::string& at) {
    std::vector<std::string> bases;
    if (names_.attention != "Attention") bases.push_back(shape_.ClassPath("Attention"));
    Add(at, Own(names_.attention, std::move(bases)))->owns_weights = names_.prefix == "GptOss";
    if (shape_.query_lora) {
      AddLinear(at + ".q_a_proj");
      AddNorm(at + ".q_a_layernorm");
      AddLinear(at + ".q_b_proj");
    } else {
      AddLinear(at + ".q_proj");
    }
    if (shape_.latent_attention) {
      AddLinear(at + ".kv_a_proj_with_mqa");
      AddNorm(at + ".kv_a_layernorm");
      AddLinear(at + ".kv_b_proj");
    } else {
      AddLinear(at + ".k_proj");
      AddLinear(at + ".v_proj");
    }
    AddLinear(at + ".o_proj");
    if (shape_.qk_norm) {
      AddNorm(at + ".q_norm");
      AddNorm(at + ".k_norm");
    }
    if (names_.attention_rotary) AddRotary(at + ".rotary_emb");
  }

  void AddRotary(const std::string& at) {
    if (!names_.rotary_class.empty()) {
      Add(at, builder_.AddClass(names_.rotary_class, {std::string(kModule)}));
    } else if (shape_.latent_attention && shape_.yarn) {
      Add(at, Own("YarnRotaryEmbedding", {shape_.ClassPath("RotaryEmbedding")}));
    } else {
      Add(at, Own("RotaryEmbedding"));
    }
  }

  void AddMlp(const std::string& at, absl::string_view class_suffix,
              const std::vector<absl::string_view>& linears = {"gate_proj", "up_proj",
                                                               "down_proj"}) {
    Add(at, Own(class_suffix));
    for (absl::string_view linear : linears) AddLinear(absl::StrCat(at, ".", linear));
    Add(at + ".act_fn", Torch("activation.SiLU"));
  }

  void AddMoe(const std::string& at) {
    Add(at, Own(names_.moe_class));
    if (names_.gate_first) AddGate(at);
    if (names_.experts_class.empty()) {
      Add(at + ".experts", Torch("container.ModuleList"))->num_experts = shape_.num_experts;
      AddMlp(at + ".experts.0", names_.expert_class, names_.expert_linears);
    } else {
      Add(at + ".experts", Own(names_.experts_class))->owns_weights = true;
    }
    if (!names_.gate_first) AddGate(at);
    if (shape_.shared_experts) AddMlp(absl::StrCat(at, ".", names_.shared), "MLP");
    if (shape_.shared_gate) AddLinear(at + ".shared_expert_gate");
  }

  void AddGate(const std::string& at) {
    const std::string name = absl::StrCat(at, ".", names_.gate);
    if (names_.gate_class.empty()) return AddLinear(name);
    Add(name, Own(names_.gate_class))->owns_weights = true;
  }

  const TreeShape& shape_;
  const FamilyNames& names_;
  ModuleTreeBuilder builder_;
};

}  // namespace

ModuleTree BuildTree(const TreeShape& shape) { return TreeMaker(shape).Make(); }

}  // namespace dovetail::coordinator::ktransformers
