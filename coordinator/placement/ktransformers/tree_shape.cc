#include "coordinator/placement/ktransformers/tree_shape.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using Json = nlohmann::json;

constexpr int kMostLayers = 10'000;
constexpr int kMostExperts = 100'000;

const std::vector<FamilyNames>& Families() {
  static const auto* const families = [] {
    auto* list = new std::vector<FamilyNames>();
    FamilyNames v2{"deepseek_v2", "ktransformers.models.modeling_deepseek", "DeepseekV2"};
    v2.moe_class = "MoE";
    v2.gate_class = "MoEGate";
    v2.shared = "shared_experts";
    v2.attention_rotary = true;
    list->push_back(v2);
    FamilyNames v3 = v2;
    v3.model_type = "deepseek_v3";
    v3.package = "ktransformers.models.modeling_deepseek_v3";
    v3.prefix = "DeepseekV3";
    list->push_back(v3);
    FamilyNames qwen2_moe{"qwen2_moe", "ktransformers.models.modeling_qwen2_moe", "Qwen2Moe"};
    qwen2_moe.attention = "SdpaAttention";
    qwen2_moe.moe_class = "SparseMoeBlock";
    qwen2_moe.gate_first = true;
    qwen2_moe.shared = "shared_expert";
    qwen2_moe.attention_rotary = true;
    list->push_back(qwen2_moe);
    FamilyNames qwen3_moe{"qwen3_moe", "ktransformers.models.modeling_qwen3_moe", "Qwen3Moe"};
    qwen3_moe.moe_class = "SparseMoeBlock";
    qwen3_moe.gate_first = true;
    qwen3_moe.attention_rotary = true;
    qwen3_moe.model_rotary = true;
    qwen3_moe.rotary_class = "ktransformers.models.modeling_qwen2_moe.Qwen2MoeRotaryEmbedding";
    list->push_back(qwen3_moe);
    FamilyNames mixtral{"mixtral", "ktransformers.models.modeling_mixtral", "Mixtral"};
    mixtral.attention = "FlashAttention2";
    mixtral.ffn = "block_sparse_moe";
    mixtral.moe_class = "SparseMoeBlock";
    mixtral.gate_first = true;
    mixtral.expert_class = "BlockSparseTop2MLP";
    mixtral.expert_linears = {"w1", "w2", "w3"};
    mixtral.attention_rotary = true;
    list->push_back(mixtral);
    FamilyNames glm4_moe{"glm4_moe", "ktransformers.models.modeling_glm4_moe", "Glm4Moe"};
    glm4_moe.moe_class = "MoE";
    glm4_moe.gate_class = "TopkRouter";
    glm4_moe.shared = "shared_experts";
    glm4_moe.model_rotary = true;
    list->push_back(glm4_moe);
    FamilyNames llama{"llama", "ktransformers.models.modeling_llama", "Llama"};
    llama.attention_rotary = true;
    llama.model_rotary = true;
    list->push_back(llama);
    for (const auto& [type, package, prefix] :
         {std::tuple{"qwen2", "transformers.models.qwen2.modeling_qwen2", "Qwen2"},
          std::tuple{"qwen3", "transformers.models.qwen3.modeling_qwen3", "Qwen3"},
          std::tuple{"gemma3_text", "transformers.models.gemma3.modeling_gemma3", "Gemma3"}}) {
      FamilyNames dense{type, package, prefix};
      dense.model_rotary = true;
      list->push_back(dense);
    }
    FamilyNames gpt_oss{"gpt_oss", "transformers.models.gpt_oss.modeling_gpt_oss", "GptOss"};
    gpt_oss.moe_class = "MLP";
    gpt_oss.gate = "router";
    gpt_oss.gate_class = "TopKRouter";
    gpt_oss.gate_first = true;
    gpt_oss.experts_class = "Experts";
    gpt_oss.model_rotary = true;
    list->push_back(gpt_oss);
    FamilyNames minimax{"minimax_m2", "transformers.models.minimax_m2.modeling_minimax_m2",
                        "MiniMaxM2"};
    minimax.ffn = "block_sparse_moe";
    minimax.moe_class = "SparseMoeBlock";
    minimax.gate_first = true;
    minimax.expert_linears = {"w1", "w2", "w3"};
    minimax.model_rotary = true;
    list->push_back(minimax);
    return list;
  }();
  return *families;
}

const FamilyNames* FindNames(absl::string_view model_type) {
  if (model_type == "kimi_k2") model_type = "deepseek_v3";
  if (model_type == "mistral" || model_type == "internlm2") model_type = "llama";
  if (model_type == "gemma3") model_type = "gemma3_text";
  for (const FamilyNames& names : Families()) {
    if (names.model_type == model_type) return &names;
  }
  return nullptr;
}

// Reads the numbers of a configuration and keeps the first mistake.
class HuggingFaceReader {
 public:
  HuggingFaceReader(const Json& config, const std::string& file) : config_(config), file_(file) {}

  bool Has(const char* key) const { return config_.contains(key) && !config_[key].is_null(); }

  int Int(const char* key, int lowest, int highest, std::optional<int> usual = std::nullopt) {
    if (!Has(key) && usual) return *usual;
    const Json value = Has(key) ? config_[key] : Json();
    if (value.is_number_integer() && value >= lowest && value <= highest) return value.get<int>();
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(
          file_, ": `", key, "` must be a number from ", lowest, " to ", highest, ", got ",
          value.is_null() ? "nothing"
                          : value.dump(-1, ' ', false, Json::error_handler_t::replace)));
    }
    return lowest;
  }
  bool Bool(const char* key) const { return Has(key) && config_[key] == Json(true); }
  std::string Text(const char* key) const {
    return Has(key) && config_[key].is_string() ? config_[key].get<std::string>() : "";
  }
  bool ListHas(const char* key, int value) const {
    return Has(key) && config_[key].is_array() &&
           std::find(config_[key].begin(), config_[key].end(), Json(value)) != config_[key].end();
  }
  const Json& config() const { return config_; }
  const absl::Status& status() const { return status_; }

 private:
  const Json& config_;
  const std::string& file_;
  absl::Status status_;
};

// Which family a configuration without a name is: by the keys that only one has.
std::string GuessModelType(const HuggingFaceReader& config) {
  if (config.Has("kv_lora_rank")) {
    const bool v3 =
        config.Text("topk_method") == "noaux_tc" || config.Text("scoring_func") == "sigmoid";
    return v3 ? "deepseek_v3" : "deepseek_v2";
  }
  if (config.Has("moe_num_primary_experts")) return "smallthinker";
  if (config.Has("linear_num_key_heads")) return "qwen3_next";
  if (config.Has("n_routed_experts")) return "glm4_moe";
  if (config.Has("num_local_experts")) return "mixtral";
  if (config.Has("shared_expert_intermediate_size")) return "qwen2_moe";
  if (config.Has("num_experts")) return "qwen3_moe";
  return "llama";
}

// DeepseekV3ForCausalLM, KDeepseekV3ForCausalLM and a path that ends so.
std::string TypeOfClass(absl::string_view name) {
  name = name.substr(name.rfind('.') == absl::string_view::npos ? 0 : name.rfind('.') + 1);
  if (!absl::ConsumeSuffix(&name, "ForCausalLM")) return "";
  for (const FamilyNames& names : Families()) {
    if (name == names.prefix || name == absl::StrCat("K", names.prefix)) {
      return std::string(names.model_type);
    }
  }
  return "";
}

bool HasExperts(const HuggingFaceReader& config, absl::string_view model_type, int layer, int first,
                int step) {
  if (config.ListHas("mlp_only_layers", layer)) return false;
  if (absl::StartsWith(model_type, "qwen")) return (layer + 1) % step == 0;
  return layer >= first && layer % step == 0;
}

absl::StatusOr<TreeShape> ReadShape(HuggingFaceReader& config, const FamilyNames& names) {
  TreeShape shape;
  shape.names = &names;
  shape.num_layers = config.Int("num_hidden_layers", 1, kMostLayers);
  if (!names.moe_class.empty()) {
    for (const char* key : {"n_routed_experts", "num_local_experts", "num_experts"}) {
      if (config.Has(key)) shape.num_experts = config.Int(key, 0, kMostExperts);
    }
  }
  const int first = config.Int("first_k_dense_replace", 0, kMostLayers, 0);
  const int step = config.Int(
      config.Has("moe_layer_freq") ? "moe_layer_freq" : "decoder_sparse_step", 1, kMostLayers, 1);
  DT_RETURN_IF_ERROR(config.status());
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    shape.has_experts.push_back(shape.num_experts > 0 &&
                                HasExperts(config, names.model_type, layer, first, step));
  }
  shape.shared_experts = !names.shared.empty() && shape.num_experts > 0 &&
                         (names.shared == "shared_expert" || config.Has("n_shared_experts"));
  shape.shared_gate = names.shared == "shared_expert";
  shape.latent_attention = config.Has("kv_lora_rank");
  shape.query_lora = shape.latent_attention && config.Has("q_lora_rank");
  shape.qk_norm = config.Bool("use_qk_norm") || absl::StartsWith(names.model_type, "qwen3") ||
                  names.model_type == "gemma3_text" || names.model_type == "minimax_m2";
  if (config.Has("rope_scaling") && config.config()["rope_scaling"].is_object()) {
    const Json& scaling = config.config()["rope_scaling"];
    shape.yarn = scaling.value("type", scaling.value("rope_type", Json())) == Json("yarn");
  }
  shape.post_norms = names.model_type == "gemma3_text";
  return shape;
}

// After "blk.N.", without ".weight" and ".bias", and with what comes after "model.layers.N.".
struct TensorName {
  absl::string_view tensor;
  absl::string_view module;
};
constexpr TensorName kLayerTensors[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_sinks", "self_attn"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"attn_k_b", "self_attn.kv_b_proj"},
    {"attn_v_b", "self_attn.kv_b_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

std::string FfnModule(const TreeShape& shape, absl::string_view tensor) {
  const FamilyNames& names = *shape.names;
  if (tensor == "ffn_norm") {
    return shape.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
  }
  // GLM's and gpt-oss's name for the norm before the experts, Gemma's for one after attention.
  if (tensor == "post_attention_norm") return "post_attention_layernorm";
  if (tensor == "ffn_gate_inp" || tensor == "exp_probs_b") {
    return absl::StrCat(names.ffn, ".", names.gate);
  }
  for (size_t i = 0; i < 3; ++i) {
    constexpr absl::string_view kTensors[] = {"ffn_gate", "ffn_up", "ffn_down"};
    constexpr absl::string_view kModules[] = {"gate_proj", "up_proj", "down_proj"};
    absl::string_view rest = tensor;
    if (!absl::ConsumePrefix(&rest, kTensors[i])) continue;
    if (rest.empty()) return absl::StrCat("mlp.", kModules[i]);
    if (rest == "_shexp") return absl::StrCat("mlp.", names.shared, ".", kModules[i]);
    if (rest != "_exps") continue;
    if (!names.experts_class.empty()) return absl::StrCat(names.ffn, ".experts");
    // w1, w2, w3 are gate, down, up.
    const size_t w = names.expert_linears[0] == "w1" ? (i == 0 ? 0 : 3 - i) : i;
    return absl::StrCat(names.ffn, ".experts.0.", names.expert_linears[w]);
  }
  return "";
}

}  // namespace

std::string TreeShape::ClassPath(absl::string_view suffix) const {
  // The router of DeepSeek alone has no prefix.
  return absl::StrCat(names->package, ".", suffix == "MoEGate" ? "" : names->prefix, suffix);
}

absl::StatusOr<TreeShape> ShapeFromHuggingFace(absl::string_view json, const std::string& file) {
  const Json root = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is not a model's configuration (JSON)"));
  }
  // The configuration may be wrapped: in a map's file, or as the text part of a larger model.
  const Json* config = &root;
  for (const char* key : {"config", "text_config"}) {
    if (config->contains(key) && (*config)[key].is_object()) config = &(*config)[key];
  }
  HuggingFaceReader reader(*config, file);
  std::string type = reader.Text("model_type");
  if (type.empty() && config->contains("architectures") && (*config)["architectures"].is_array() &&
      !(*config)["architectures"].empty() && (*config)["architectures"][0].is_string()) {
    type = TypeOfClass((*config)["architectures"][0].get<std::string>());
  }
  if (type.empty()) type = TypeOfClass(HuggingFaceReader(root, file).Text("model_class"));
  if (type.empty()) type = GuessModelType(reader);
  const FamilyNames* names = FindNames(type);
  if (names == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": there is no module tree for `", type, "`; known: ",
        absl::StrJoin(Families(), ", ", [](std::string* out, const FamilyNames& family) {
          absl::StrAppend(out, family.model_type);
        })));
  }
  return ReadShape(reader, *names);
}

absl::StatusOr<TreeShape> ShapeFromModel(const model::ModelConfig& config) {
  std::string type = config.architecture;
  if (type == "deepseek2") {
    type = config.experts.score == model::RouterScore::kSigmoid ? "deepseek_v3" : "deepseek_v2";
  }
  if (type == "llama" && config.experts.count > 0) type = "mixtral";
  if (type == "qwen2moe") type = "qwen2_moe";
  if (type == "qwen3moe") type = "qwen3_moe";
  if (type == "glm4moe") type = "glm4_moe";
  if (type == "gpt-oss") type = "gpt_oss";
  if (type == "minimax-m2") type = "minimax_m2";
  TreeShape shape;
  shape.names = FindNames(type);
  if (shape.names == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no module tree for the architecture `", config.architecture,
                     "`, so KTransformers' rules cannot be read for it"));
  }
  shape.num_layers = config.num_hidden_layers;
  shape.num_experts = config.experts.count;
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    shape.has_experts.push_back(config.HasExperts(layer));
  }
  shape.shared_experts = config.experts.shared_intermediate_size > 0;
  shape.shared_gate = config.experts.shared_gate;
  shape.qk_norm = config.qk_norm != model::QkNorm::kNone;
  shape.yarn = config.rope_attention_factor != 1.0f;
  shape.post_norms = config.post_norms;
  for (const model::WeightSpec& spec : model::WeightsOf(config, {OpKind::kAttention, 0})) {
    shape.latent_attention |= spec.tensor == "blk.0.attn_kv_a_mqa.weight";
    shape.query_lora |= spec.tensor == "blk.0.attn_q_a.weight";
  }
  return shape;
}

std::string ModuleOfTensor(const TreeShape& shape, absl::string_view tensor) {
  absl::ConsumeSuffix(&tensor, ".weight");
  absl::ConsumeSuffix(&tensor, ".bias");
  if (tensor == "token_embd") return "model.embed_tokens";
  if (tensor == "output_norm") return "model.norm";
  if (tensor == "output") return "lm_head";
  if (!absl::ConsumePrefix(&tensor, "blk.")) return "";
  const size_t dot = tensor.find('.');
  int layer = 0;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(tensor.substr(0, dot), &layer)) return "";
  const absl::string_view rest = tensor.substr(dot + 1);
  std::string module = FfnModule(shape, rest);
  for (const TensorName& name : kLayerTensors) {
    if (name.tensor == rest) module = std::string(name.module);
  }
  return module.empty() ? "" : absl::StrCat("model.layers.", layer, ".", module);
}

}  // namespace dovetail::coordinator::ktransformers
