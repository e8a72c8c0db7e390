#include "model/hf_config.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/arch/family_reader.h"
#include "model/arch/registry.h"
#include "model/arch/tensor_check.h"
#include "model/arch/weights.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLargestNumber = int64_t{1} << 40;
constexpr int64_t kMostLayers = 4096;

// Hugging Face's model types, how their classes' names begin, and GGUF's architectures.
struct TypeNames {
  absl::string_view model_type, class_prefix, architecture;
};
constexpr TypeNames kTypes[] = {
    {"deepseek_v3", "DeepseekV3", "deepseek2"},
    {"deepseek_v2", "DeepseekV2", "deepseek2"},
    {"kimi_k2", "KimiK2", "deepseek2"},
    {"qwen2_moe", "Qwen2Moe", "qwen2moe"},
    {"qwen2", "Qwen2", "qwen2"},
    {"qwen3_moe", "Qwen3Moe", "qwen3moe"},
    {"qwen3", "Qwen3", "qwen3"},
    {"mixtral", "Mixtral", "llama"},
    {"mistral", "Mistral", "llama"},
    {"internlm2", "InternLM2", "llama"},
    {"llama", "Llama", "llama"},
    {"glm4_moe", "Glm4Moe", "glm4moe"},
    {"minimax_m2", "MiniMaxM2", "minimax-m2"},
    {"gemma3_text", "Gemma3", "gemma3"},
    {"gpt_oss", "GptOss", "gpt-oss"},
};

std::string TextOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// What kind of model it is: `model_type`, or the name of a class, which a dumped map has beside it.
const TypeNames* FindType(const Json& config, const Json& whole) {
  const std::string type = TextOf(config, "model_type");
  for (const TypeNames& names : kTypes) {
    if (names.model_type == type) return &names;
  }
  std::string class_name = TextOf(whole, "model_class");
  const auto list = config.find("architectures");
  if (list != config.end() && list->is_array() && !list->empty() && list->front().is_string()) {
    class_name = list->front().get<std::string>();
  }
  class_name = class_name.substr(class_name.rfind('.') + 1);
  for (const TypeNames& names : kTypes) {
    if (absl::StartsWith(class_name, names.class_prefix)) return &names;
  }
  return nullptr;
}

// Metadata in the form of a GGUF file, from the keys of a configuration.
class Converter {
 public:
  Converter(const Json& config, absl::string_view architecture)
      : config_(config), architecture_(architecture) {}

  bool Has(const char* key) const { return config_.contains(key) && !config_[key].is_null(); }

  // A whole number; a mistake where it is none, or where it is missing without `usual`.
  int64_t Int(const char* key, int64_t usual = -1) {
    if (!Has(key)) {
      if (usual < 0) mistakes_.push_back(absl::StrCat("`", key, "` is missing"));
      return usual;
    }
    const Json& value = config_[key];
    if (value.is_number_integer() && value >= 0 && value <= kLargestNumber) {
      return value.get<int64_t>();
    }
    mistakes_.push_back(absl::StrCat("`", key, "` must be a whole number"));
    return 1;
  }
  double Number(const char* key, double usual) const {
    return Has(key) && config_[key].is_number() ? config_[key].get<double>() : usual;
  }
  bool Flag(const char* key, bool usual = false) const {
    return Has(key) && config_[key].is_boolean() ? config_[key].get<bool>() : usual;
  }
  // The first of these keys that is there.
  int64_t AnyInt(std::initializer_list<const char*> keys, int64_t usual = -1) {
    for (const char* key : keys) {
      if (Has(key)) return Int(key);
    }
    return usual >= 0 ? usual : Int(*keys.begin());
  }

  void Set(absl::string_view key, int64_t value) {
    Add(key, {GgufValueType::kUint64, GgufValueType::kUint8, static_cast<uint64_t>(value)});
  }
  void SetNumber(absl::string_view key, double value) {
    Add(key, {GgufValueType::kFloat64, GgufValueType::kUint8, value});
  }
  void SetFlag(absl::string_view key, bool value) {
    Add(key, {GgufValueType::kBool, GgufValueType::kUint8, value});
  }

  void Convert();

  const std::vector<std::string>& mistakes() const { return mistakes_; }
  std::vector<std::pair<std::string, GgufValue>> TakeMetadata() { return std::move(metadata_); }

 private:
  void Add(absl::string_view key, GgufValue value) {
    metadata_.emplace_back(absl::StrCat(architecture_, ".", key), std::move(value));
  }
  void ConvertExperts();
  void ConvertLatentAttention();

  const Json& config_;
  absl::string_view architecture_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<std::string> mistakes_;
};

void Converter::Convert() {
  const int64_t hidden = Int("hidden_size");
  const int64_t heads = Int("num_attention_heads");
  const int64_t layers = Int("num_hidden_layers");
  if (layers > kMostLayers) mistakes_.push_back("`num_hidden_layers` is more than any model has");
  Set("block_count", layers);
  Set("embedding_length", hidden);
  Set("feed_forward_length", AnyInt({"intermediate_size"}));
  Set("context_length", AnyInt({"max_position_embeddings"}, 4096));
  Set("vocab_size", Int("vocab_size"));
  Set("attention.head_count", heads);
  SetNumber("attention.layer_norm_rms_epsilon", Number("rms_norm_eps", 1e-6));
  SetNumber("rope.freq_base", Number("rope_theta", 10000.0));
  if (AnyInt({"n_routed_experts", "num_experts", "num_local_experts"}, 0) > 0) ConvertExperts();
  if (architecture_ == "deepseek2") return ConvertLatentAttention();
  Set("attention.head_count_kv", Int("num_key_value_heads", heads));
  const int64_t head_dim = Int("head_dim", heads > 0 ? hidden / heads : 1);
  Set("attention.key_length", head_dim);
  Set("attention.value_length", head_dim);
  const double part = Number("partial_rotary_factor", 1.0);
  Set("rope.dimension_count",
      Int("rotary_dim", static_cast<int64_t>(part * static_cast<double>(head_dim))));
  if (architecture_ == "gemma3" || architecture_ == "gpt-oss") {
    Set("attention.sliding_window", Int("sliding_window", 0));
  }
}

void Converter::ConvertExperts() {
  Set("expert_count", AnyInt({"n_routed_experts", "num_experts", "num_local_experts"}));
  Set("expert_used_count", AnyInt({"num_experts_per_tok"}));
  Set("expert_feed_forward_length", AnyInt({"moe_intermediate_size", "intermediate_size"}));
  if (Has("first_k_dense_replace")) {
    Set("leading_dense_block_count", Int("first_k_dense_replace"));
  }
  if (Has("n_shared_experts")) Set("expert_shared_count", Int("n_shared_experts"));
  if (Has("shared_expert_intermediate_size")) {
    Set("expert_shared_feed_forward_length", Int("shared_expert_intermediate_size"));
  }
  if (architecture_ != "deepseek2") return;
  Set("expert_group_count", Int("n_group", 1));
  Set("expert_group_used_count", Int("topk_group", 1));
  SetNumber("expert_weights_scale", Number("routed_scaling_factor", 1.0));
  SetFlag("expert_weights_norm", Flag("norm_topk_prob"));
  Set("expert_gating_func", TextOf(config_, "scoring_func") == "sigmoid" ? 2 : 1);
}

// As newer files have it: one latent head, kv_b in two parts.
void Converter::ConvertLatentAttention() {
  const int64_t lora = Int("kv_lora_rank");
  const int64_t rope = Int("qk_rope_head_dim");
  Set("attention.head_count_kv", 1);
  if (Has("q_lora_rank")) Set("attention.q_lora_rank", Int("q_lora_rank"));
  Set("attention.kv_lora_rank", lora);
  Set("attention.key_length", lora + rope);
  Set("attention.value_length", lora);
  Set("attention.key_length_mla", Int("qk_nope_head_dim") + rope);
  Set("attention.value_length_mla", Int("v_head_dim"));
  Set("rope.dimension_count", rope);
}

GgufTensor MakeTensor(const std::string& name, WeightType type, std::vector<int64_t> shape) {
  GgufTensor tensor;
  tensor.name = name;
  tensor.type = type;
  tensor.shape = std::move(shape);
  tensor.bytes = StoredBytes(type, tensor.elements());
  return tensor;
}

// Tensors whose presence says what no key does.
std::vector<GgufTensor> Hints(const Converter& converter, int64_t layers) {
  std::vector<GgufTensor> hints;
  const auto add = [&](const std::string& name) {
    hints.push_back(MakeTensor(name, WeightType::kF32, {1}));
  };
  for (int64_t i = 0; i < layers; ++i) add(absl::StrCat("blk.", i, ".attn_norm.weight"));
  if (!converter.Flag("tie_word_embeddings")) add(kOutput);
  if (converter.Flag("attention_bias")) add("blk.0.attn_q.bias");
  if (converter.Flag("use_qk_norm")) add("blk.0.attn_q_norm.weight");
  if (converter.Has("topk_method") || converter.Has("scoring_func")) {
    for (int64_t i = 0; i < layers; ++i) add(absl::StrCat("blk.", i, ".exp_probs_b.bias"));
  }
  return hints;
}

WeightType TypeFor(const WeightSpec& spec, WeightType wanted) {
  if (spec.is_vector || spec.role == WeightRole::kRouter) return WeightType::kF32;
  const int64_t cols = spec.stored_cols();
  if (cols % InfoOf(wanted).block_elements == 0) return wanted;
  return cols % InfoOf(WeightType::kQ8_0).block_elements == 0 ? WeightType::kQ8_0
                                                              : WeightType::kF16;
}

std::vector<GgufTensor> TensorsOf(const Family& family, const ModelConfig& config,
                                  WeightType wanted) {
  std::vector<GgufTensor> tensors;
  std::set<std::string> known;
  for (const Op& op : OpsOf(config)) {
    for (const WeightSpec& spec : family.weights_of(config, op)) {
      if (!known.insert(spec.tensor).second) continue;
      tensors.push_back(MakeTensor(spec.tensor, TypeFor(spec, wanted), StoredShape(spec)));
    }
  }
  return tensors;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> HeaderFromHfConfig(absl::string_view json,
                                                             const std::string& name,
                                                             WeightType type) {
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", what));
  };
  const Json whole = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!whole.is_object()) return refuse("not a JSON object");
  const Json& config =
      whole.contains("config") && whole["config"].is_object() ? whole["config"] : whole;
  const TypeNames* names = FindType(config, whole);
  const Family* family = names == nullptr ? nullptr : FindFamily(names->architecture);
  if (family == nullptr) {
    return refuse(absl::StrCat("`model_type` ", QuoteName(TextOf(config, "model_type")),
                               " is not supported (GGUF's architectures that are: ",
                               absl::StrJoin(SupportedArchitectures(), ", "), ")"));
  }
  Converter converter(config, names->architecture);
  converter.Convert();
  if (!converter.mistakes().empty()) return refuse(absl::StrJoin(converter.mistakes(), "; "));
  std::vector<std::pair<std::string, GgufValue>> metadata = converter.TakeMetadata();
  const auto text = [](absl::string_view value) {
    return GgufValue{GgufValueType::kString, GgufValueType::kUint8, std::string(value)};
  };
  metadata.emplace_back("general.architecture", text(names->architecture));
  metadata.emplace_back("general.name", text(name));
  const std::unique_ptr<GgufFile> draft =
      GgufFile::FromHeader(name, metadata, Hints(converter, converter.Int("num_hidden_layers")));
  DT_ASSIGN_OR_RETURN(const ModelConfig read, ReadFamilyConfig(*draft, *family));
  return GgufFile::FromHeader(name, std::move(metadata), TensorsOf(*family, read, type));
}

}  // namespace dovetail::model
