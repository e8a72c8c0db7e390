#include "model/arch/family_reader.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/arch/registry.h"
#include "model/arch/tensor_check.h"
#include "model/arch/weights.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

constexpr char kRopeFreqs[] = "rope_freqs.weight";
constexpr size_t kListed = 200;
constexpr int32_t kMaxWidth = 1 << 22;
constexpr int32_t kMaxExperts = 1 << 14;
constexpr int32_t kMaxHeadDim = 1 << 13;

// Keys that change the arithmetic. A file that sets one to anything but `neutral`, of a family that
// does not read it, would be computed wrongly, so it is refused.
struct NeutralKey {
  absl::string_view key;
  double neutral;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"attention.scale", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.sliding_window", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"embedding_scale", 1},
    {"residual_scale", 1},
    {"logit_scale", 1},
    {"expert_count", 0},
    {"moe_every_n_layers", 0},
    {"interleave_moe_layer_step", 1},
    {"nextn_predict_layers", 0},
    {"attention.kv_lora_rank", 0},
    {"attention.q_lora_rank", 0},
    {"rope.scaling.yarn_log_multiplier", 0},
};

absl::Status Refuse(const GgufFile& file, absl::Span<const std::string> problems) {
  return absl::InvalidArgumentError(
      ListProblems(absl::StrCat(file.path(), ": cannot be run"), problems, kListed));
}

// Where no key says so, the embedding does.
int32_t ReadVocabSize(const GgufFile& file, MetadataReader& keys) {
  constexpr int32_t kMaxVocab = 1 << 24;
  const GgufTensor* embedding = file.FindTensor(kTokenEmbedding);
  std::optional<int32_t> rows;
  if (embedding != nullptr && embedding->rows() <= kMaxVocab) {
    rows = static_cast<int32_t>(embedding->rows());
  }
  return keys.Dimension("vocab_size", kMaxVocab, rows);
}

// Tensors of the blocks after the last that is decoded.
std::vector<std::string> TensorsFromBlock(const GgufFile& file, int32_t first) {
  std::vector<std::string> names;
  for (const GgufTensor& tensor : file.tensors()) {
    absl::string_view name = tensor.name;
    if (!absl::ConsumePrefix(&name, "blk.")) continue;
    int32_t block;
    if (absl::SimpleAtoi(name.substr(0, name.find('.')), &block) && block >= first) {
      names.push_back(tensor.name);
    }
  }
  return names;
}

}  // namespace

void FamilyReader::ReadDecoder() {
  ReadDimensions();
  rope_base_ = keys_.Number("rope.freq_base", 1.001, 1e12, 10000.0);
  rope_scaling_ = ReadRopeScaling(keys_, config_.max_position_embeddings);
}

void FamilyReader::ReadDimensions() {
  constexpr int32_t kMaxHeads = 1 << 14;
  config_.num_hidden_layers = keys_.Dimension("block_count", 1 << 14);
  config_.hidden_size = keys_.Dimension("embedding_length", 1 << 20);
  config_.intermediate_size = keys_.Dimension("feed_forward_length", kMaxWidth);
  config_.max_position_embeddings = keys_.Dimension("context_length", 1 << 30);
  config_.rms_norm_eps = static_cast<float>(keys_.Number("attention.layer_norm_rms_epsilon", 0, 1));
  config_.vocab_size = ReadVocabSize(file_, keys_);
  const int32_t heads = keys_.Dimension("attention.head_count", kMaxHeads);
  config_.num_attention_heads = heads;
  config_.num_key_value_heads = keys_.Dimension("attention.head_count_kv", kMaxHeads, heads);
  const int32_t usual = std::max(config_.hidden_size / heads, 1);
  config_.head_dim = keys_.Dimension("attention.key_length", kMaxHeadDim, usual);
  config_.rope_dim = keys_.Dimension("rope.dimension_count", kMaxHeadDim, config_.head_dim);
  config_.attention_scale = static_cast<float>(1.0 / std::sqrt(config_.head_dim));
  config_.tie_word_embeddings = !HasTensor(kOutput);
  if (keys_.Has("pooling_type")) {
    config_.pooling =
        static_cast<Pooling>(keys_.Count("pooling_type", static_cast<int32_t>(Pooling::kRank)));
  }
}

// Newer files give the lengths of whole heads under names of their own, because key_length and
// value_length are those of the cache there.
void FamilyReader::ReadLatentAttention() {
  LatentConfig& latent = config_.latent;
  const bool newer = keys_.Has("attention.key_length_mla");
  latent.kv_lora_rank = keys_.Dimension("attention.kv_lora_rank", kMaxHeadDim);
  latent.q_lora_rank = keys_.Count("attention.q_lora_rank", kMaxWidth, 0);
  config_.head_dim =
      keys_.Dimension(newer ? "attention.key_length_mla" : "attention.key_length", kMaxHeadDim);
  latent.v_head_dim =
      keys_.Dimension(newer ? "attention.value_length_mla" : "attention.value_length", kMaxHeadDim);
  latent.nope_dim = config_.head_dim - config_.rope_dim;
  config_.num_key_value_heads = 1;  // what older files say is the number before they are made
  config_.attention_scale = static_cast<float>(1.0 / std::sqrt(config_.head_dim));
}

void FamilyReader::ReadExperts(const ExpertConfig& usual) {
  ExpertConfig& experts = config_.experts;
  experts = usual;
  experts.count = keys_.Dimension("expert_count", kMaxExperts);
  experts.num_used = keys_.Dimension("expert_used_count", kMaxExperts);
  if (experts.num_used > experts.count) {
    keys_.AddProblem("expert_used_count", absl::StrCat("is ", experts.num_used,
                                                       ", more than expert_count ", experts.count));
  }
  experts.intermediate_size =
      keys_.Dimension("expert_feed_forward_length", kMaxWidth, config_.intermediate_size);
  experts.first_layer = keys_.Count("leading_dense_block_count", 1 << 14, usual.first_layer);
  const int32_t usual_score = static_cast<int32_t>(usual.score) + 1;
  const int32_t score = keys_.Count("expert_gating_func", 3, usual_score);
  experts.score = static_cast<RouterScore>((score == 0 ? usual_score : score) - 1);
  experts.normalise = keys_.Flag("expert_weights_norm", usual.normalise);
  const double scale = keys_.Number("expert_weights_scale", 0, 1e6, usual.scale);
  experts.scale = scale == 0 ? 1.0f : static_cast<float>(scale);  // 0: not given
  ReadSharedExpert(&experts);
  ReadGroups(&experts);
}

void FamilyReader::ReadSharedExpert(ExpertConfig* experts) {
  const int32_t count = keys_.Count("expert_shared_count", 1 << 10, 0);
  // Several shared experts are stored as one wide one.
  const int64_t width = int64_t{count} * experts->intermediate_size;
  if (width > kMaxWidth) {
    keys_.AddProblem("expert_shared_count", absl::StrCat("is ", count, ", too many"));
    return;
  }
  const int32_t usual = count > 0 ? static_cast<int32_t>(width) : experts->shared_intermediate_size;
  experts->shared_intermediate_size =
      keys_.Count("expert_shared_feed_forward_length", kMaxWidth, usual);
}

void FamilyReader::ReadGroups(ExpertConfig* experts) {
  constexpr int32_t kMaxGroups = 64;  // the router's limit
  const int32_t usual_groups = experts->num_groups;
  experts->num_groups =
      std::max(1, keys_.Count("expert_group_count", kMaxGroups, experts->num_groups));
  const bool as_usual = experts->num_groups == usual_groups;
  experts->groups_used =
      std::max(1, keys_.Count("expert_group_used_count", kMaxExperts,
                              as_usual ? experts->groups_used : experts->num_groups));
  const int32_t groups = experts->num_groups;
  if (experts->count % groups != 0) {
    keys_.AddProblem("expert_group_count", absl::StrCat("is ", groups, ", which does not divide ",
                                                        "expert_count ", experts->count));
  } else if (experts->groups_used > groups ||
             experts->count / groups * experts->groups_used < experts->num_used) {
    keys_.AddProblem("expert_group_used_count",
                     absl::StrCat("is ", experts->groups_used, " of ", groups, " groups, but ",
                                  experts->num_used, " experts are to be chosen from them"));
  }
}

void FamilyReader::ReadNextn() {
  config_.num_nextn_layers = keys_.Count("nextn_predict_layers", 1 << 10, 0);
  if (config_.num_nextn_layers >= config_.num_hidden_layers) {
    keys_.AddProblem("nextn_predict_layers",
                     absl::StrCat("is ", config_.num_nextn_layers, ", but block_count is ",
                                  config_.num_hidden_layers));
    return;
  }
  config_.num_hidden_layers -= config_.num_nextn_layers;
}

void FamilyReader::RefuseForeignKeys() {
  for (const NeutralKey& foreign : kNeutralKeys) {
    if (keys_.WasRead(foreign.key)) continue;
    const double value = keys_.Number(foreign.key, -1e9, 1e9, foreign.neutral);
    if (value == foreign.neutral) continue;
    keys_.AddProblem(foreign.key,
                     absl::StrCat("is ", value, ", which is not supported for this architecture"));
  }
  if (!keys_.Flag("attention.causal", true)) {
    keys_.AddProblem("attention.causal",
                     "is false: models that do not generate text left to "
                     "right are not supported");
  }
}

void FamilyReader::CheckHeads() {
  const int32_t heads = config_.num_attention_heads;
  if (heads % config_.num_key_value_heads != 0) {
    keys_.AddProblem("attention.head_count",
                     absl::StrCat("is ", heads, ", not a multiple of head_count_kv ",
                                  config_.num_key_value_heads));
  }
  if (!keys_.Has("attention.key_length") && config_.hidden_size % heads != 0) {
    keys_.AddProblem(
        "embedding_length",
        absl::StrCat("is ", config_.hidden_size, ", not a multiple of attention.head_count ", heads,
                     ", and attention.key_length is not given"));
  }
  const int32_t value_dim =
      keys_.Dimension("attention.value_length", 1 << 13, std::max(config_.hidden_size / heads, 1));
  if (value_dim != config_.head_dim) {
    keys_.AddProblem("attention.value_length",
                     absl::StrCat("is ", value_dim, ", but attention.key_length is ",
                                  config_.head_dim, "; only equal lengths are supported"));
  }
  if (config_.head_dim % 2 != 0) {
    keys_.AddProblem("attention.key_length", absl::StrCat("is ", config_.head_dim, ", not even"));
  }
  if (config_.rope_dim > config_.head_dim || config_.rope_dim % 2 != 0) {
    keys_.AddProblem("rope.dimension_count",
                     absl::StrCat("is ", config_.rope_dim, ", expected an even number up to ",
                                  config_.head_dim));
  }
}

void FamilyReader::CheckLatentHeads() {
  const int32_t rope = config_.rope_dim;
  if (rope % 2 == 0 && rope < config_.head_dim) return;
  keys_.AddProblem(
      "rope.dimension_count",
      absl::StrCat("is ", rope, ", expected an even number below the head's ", config_.head_dim));
}

// What the keys say together, once each by itself is sound.
void FamilyReader::CheckDimensions() {
  if (config_.HasLatentAttention()) {
    CheckLatentHeads();
  } else {
    CheckHeads();
  }
  if (static_cast<size_t>(config_.num_hidden_layers) > file_.tensors().size()) {
    keys_.AddProblem("block_count",
                     absl::StrCat("is ", config_.num_hidden_layers, ", but the file has only ",
                                  file_.tensors().size(), " tensors"));
  }
  const GgufValue* tokens = file_.Find("tokenizer.ggml.tokens");
  const auto* list =
      tokens == nullptr ? nullptr : std::get_if<std::vector<std::string>>(&tokens->value);
  if (list != nullptr && list->size() > static_cast<size_t>(config_.vocab_size)) {
    keys_.AddProblem(absl::StrCat("tokenizer.ggml.tokens: has ", list->size(),
                                  " tokens, more than the vocabulary's ", config_.vocab_size));
  }
}

// rope_freqs.weight, one divisor per pair (llama3 scaling); empty where the file has none.
std::vector<double> FamilyReader::ReadRopeFreqs() {
  const GgufTensor* tensor = file_.FindTensor(kRopeFreqs);
  if (tensor == nullptr) return {};
  const int32_t pairs = config_.rope_dim / 2;
  if (tensor->shape != std::vector<int64_t>{pairs} || !IsFloat(tensor->type)) {
    keys_.AddProblem(
        absl::StrCat("tensor ", kRopeFreqs, ": expected [", pairs, "] elements of a float type"));
    return {};
  }
  std::vector<double> factors = ReadFloats(file_, *tensor);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (std::isfinite(factors[i]) && factors[i] > 0) continue;
    keys_.AddProblem(absl::StrCat("tensor ", kRopeFreqs, ": element ", i, " is ", factors[i],
                                  ", expected a positive number"));
    return {};
  }
  return factors;
}

void FamilyReader::FillRope() {
  const std::vector<double> factors = ReadRopeFreqs();
  if (!keys_.problems().empty()) return;
  config_.rope_inv_freq = RopeInvFreq(rope_base_, config_.rope_dim, factors, rope_scaling_);
  config_.rope_attention_factor = static_cast<float>(rope_scaling_.attention_factor);
  if (local_rope_base_ > 0) {
    config_.rope_inv_freq_local = RopeInvFreq(local_rope_base_, config_.rope_dim, {}, {});
  }
}

void FamilyReader::Finish() {
  RefuseForeignKeys();
  // Each check presumes that those before it found nothing.
  if (keys_.problems().empty()) CheckDimensions();
  if (keys_.problems().empty()) FillRope();
}

absl::StatusOr<ModelConfig> ReadFamilyConfig(const GgufFile& file, const Family& family) {
  ModelConfig config;
  config.architecture = std::string(family.architecture);
  FamilyReader reader(file, &config);
  family.read(reader);
  reader.Finish();
  if (!reader.keys().problems().empty()) return Refuse(file, reader.keys().problems());
  return config;
}

namespace {

// All weights that the family names, with the scales that this file has for them. Scales of
// activations ("blk.0.attn_q.input_scale"), which NVFP4 files may also have, go to `known`: ours
// are made from the activations themselves (docs/numerics.md).
std::vector<WeightSpec> FindWeights(const GgufFile& file, const Family& family, ModelConfig* config,
                                    std::vector<std::string>* known) {
  std::vector<WeightSpec> specs;
  for (const Op& op : OpsOf(*config)) {
    std::vector<WeightSpec> of_op = family.weights_of(*config, op);
    for (const WeightSpec& spec : of_op) {
      if (spec.is_vector || spec.tensor == kTokenEmbedding) continue;
      if (file.FindTensor(ScaleTensor(spec.tensor)) != nullptr) {
        config->scaled_weights.insert(spec.tensor);
      }
      known->push_back(absl::StrCat(absl::StripSuffix(spec.tensor, ".weight"), ".input_scale"));
    }
    AddScales(*config, op, &of_op);
    specs.insert(specs.end(), std::make_move_iterator(of_op.begin()),
                 std::make_move_iterator(of_op.end()));
  }
  return specs;
}

}  // namespace

absl::StatusOr<ModelConfig> LoadFamily(const GgufFile& file, const Family& family) {
  DT_ASSIGN_OR_RETURN(ModelConfig config, ReadFamilyConfig(file, family));
  std::vector<std::string> known = {kRopeFreqs};
  const std::vector<WeightSpec> specs = FindWeights(file, family, &config, &known);
  if (config.HasLatentAttention() && !config.latent.merged_kv_b) {  // some files have both forms
    for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      known.push_back(absl::StrCat("blk.", layer, ".attn_kv_b.weight"));
    }
  }
  if (config.num_nextn_layers > 0) {
    for (std::string& name : TensorsFromBlock(file, config.num_hidden_layers)) {
      known.push_back(std::move(name));
    }
  }
  const std::vector<std::string> problems = CheckTensors(file, specs, known);
  if (!problems.empty()) return Refuse(file, problems);
  return config;
}

}  // namespace dovetail::model
