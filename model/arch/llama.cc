#include "model/arch/llama.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/arch/metadata_reader.h"
#include "model/arch/rope.h"
#include "model/arch/tensor_check.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

constexpr char kRopeFreqs[] = "rope_freqs.weight";
constexpr char kTokenEmbedding[] = "token_embd.weight";
constexpr char kOutput[] = "output.weight";
constexpr size_t kListed = 200;

// Keys that change the arithmetic of other architectures; a llama file that sets one to anything
// but `neutral` would be computed wrongly, so it is refused.
struct NeutralKey {
  absl::string_view key;
  double neutral;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"attention.scale", 0},          {"attention.clamp_kqv", 0},    {"attention.max_alibi_bias", 0},
    {"attention.sliding_window", 0}, {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0},
    {"embedding_scale", 1},          {"residual_scale", 1},         {"logit_scale", 1},
};

void RefuseForeignKeys(MetadataReader& reader) {
  for (const NeutralKey& foreign : kNeutralKeys) {
    const double value = reader.Number(foreign.key, -1e9, 1e9, foreign.neutral);
    if (value == foreign.neutral) continue;
    reader.AddProblem(foreign.key,
                      absl::StrCat("is ", value, ", which is not supported for this architecture"));
  }
  if (!reader.Flag("attention.causal", true)) {
    reader.AddProblem("attention.causal",
                      "is false: models that do not generate text left to "
                      "right are not supported");
  }
  if (reader.Number("expert_count", 0, 1e6, 0) > 0) {
    reader.AddProblem("expert_count",
                      "mixture-of-experts models of this architecture (Mixtral) are not supported "
                      "yet");
  }
}

// Where no key says so, the embedding does.
int32_t ReadVocabSize(const GgufFile& file, MetadataReader& reader) {
  constexpr int32_t kMaxVocab = 1 << 24;
  const GgufTensor* embedding = file.FindTensor(kTokenEmbedding);
  std::optional<int32_t> rows;
  if (embedding != nullptr && embedding->rows() <= kMaxVocab) {
    rows = static_cast<int32_t>(embedding->rows());
  }
  return reader.Dimension("vocab_size", kMaxVocab, rows);
}

void ReadDimensions(const GgufFile& file, MetadataReader& reader, ModelConfig* config) {
  constexpr int32_t kMaxHeads = 1 << 14;
  constexpr int32_t kMaxHeadDim = 1 << 13;
  config->num_hidden_layers = reader.Dimension("block_count", 1 << 14);
  config->hidden_size = reader.Dimension("embedding_length", 1 << 20);
  config->intermediate_size = reader.Dimension("feed_forward_length", 1 << 22);
  config->max_position_embeddings = reader.Dimension("context_length", 1 << 30);
  config->rms_norm_eps =
      static_cast<float>(reader.Number("attention.layer_norm_rms_epsilon", 0, 1));
  config->vocab_size = ReadVocabSize(file, reader);
  const int32_t heads = reader.Dimension("attention.head_count", kMaxHeads);
  config->num_attention_heads = heads;
  config->num_key_value_heads = reader.Dimension("attention.head_count_kv", kMaxHeads, heads);
  const int32_t usual = std::max(config->hidden_size / heads, 1);
  config->head_dim = reader.Dimension("attention.key_length", kMaxHeadDim, usual);
  config->rope_dim = reader.Dimension("rope.dimension_count", kMaxHeadDim, config->head_dim);
  config->attention_scale = static_cast<float>(1.0 / std::sqrt(config->head_dim));
}

void CheckHeads(MetadataReader& reader, const ModelConfig& config) {
  const int32_t heads = config.num_attention_heads;
  if (heads % config.num_key_value_heads != 0) {
    reader.AddProblem("attention.head_count",
                      absl::StrCat("is ", heads, ", not a multiple of head_count_kv ",
                                   config.num_key_value_heads));
  }
  if (!reader.Has("attention.key_length") && config.hidden_size % heads != 0) {
    reader.AddProblem(
        "embedding_length",
        absl::StrCat("is ", config.hidden_size, ", not a multiple of attention.head_count ", heads,
                     ", and attention.key_length is not given"));
  }
  const int32_t value_dim =
      reader.Dimension("attention.value_length", 1 << 13, std::max(config.hidden_size / heads, 1));
  if (value_dim != config.head_dim) {
    reader.AddProblem("attention.value_length",
                      absl::StrCat("is ", value_dim, ", but attention.key_length is ",
                                   config.head_dim, "; only equal lengths are supported"));
  }
  if (config.head_dim % 2 != 0) {
    reader.AddProblem("attention.key_length", absl::StrCat("is ", config.head_dim, ", not even"));
  }
  if (config.rope_dim > config.head_dim || config.rope_dim % 2 != 0) {
    reader.AddProblem(
        "rope.dimension_count",
        absl::StrCat("is ", config.rope_dim, ", expected an even number up to ", config.head_dim));
  }
}

// What the keys say together, once each by itself is sound.
void CheckDimensions(const GgufFile& file, MetadataReader& reader, const ModelConfig& config) {
  CheckHeads(reader, config);
  if (static_cast<size_t>(config.num_hidden_layers) > file.tensors().size()) {
    reader.AddProblem("block_count",
                      absl::StrCat("is ", config.num_hidden_layers, ", but the file has only ",
                                   file.tensors().size(), " tensors"));
  }
  const GgufValue* tokens = file.Find("tokenizer.ggml.tokens");
  const auto* list =
      tokens == nullptr ? nullptr : std::get_if<std::vector<std::string>>(&tokens->value);
  if (list != nullptr && list->size() > static_cast<size_t>(config.vocab_size)) {
    reader.AddProblem(absl::StrCat("tokenizer.ggml.tokens: has ", list->size(),
                                   " tokens, more than the vocabulary's ", config.vocab_size));
  }
}

// rope_freqs.weight, one divisor per pair (llama3 scaling); empty where the file has none.
std::vector<double> ReadRopeFreqs(const GgufFile& file, int32_t rope_dim, MetadataReader& reader) {
  const GgufTensor* tensor = file.FindTensor(kRopeFreqs);
  if (tensor == nullptr) return {};
  if (tensor->shape != std::vector<int64_t>{rope_dim / 2} || !IsFloat(tensor->type)) {
    reader.AddProblem(absl::StrCat("tensor ", kRopeFreqs, ": expected [", rope_dim / 2,
                                   "] elements of a float type"));
    return {};
  }
  std::vector<double> factors = ReadFloats(file, *tensor);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (std::isfinite(factors[i]) && factors[i] > 0) continue;
    reader.AddProblem(absl::StrCat("tensor ", kRopeFreqs, ": element ", i, " is ", factors[i],
                                   ", expected a positive number"));
    return {};
  }
  return factors;
}

absl::Status Refuse(const GgufFile& file, absl::Span<const std::string> problems) {
  return absl::InvalidArgumentError(
      ListProblems(absl::StrCat(file.path(), ": cannot be run"), problems, kListed));
}

WeightSpec Matrix(WeightRole role, std::string tensor, std::string module, int64_t rows,
                  int64_t cols) {
  return {role, absl::StrCat(tensor, ".weight"), std::move(module), rows, cols, false};
}

WeightSpec Vector(WeightRole role, std::string tensor, std::string module, int64_t cols) {
  return {role, absl::StrCat(tensor, ".weight"), std::move(module), 1, cols, true};
}

}  // namespace

absl::StatusOr<ModelConfig> LoadLlama(const GgufFile& file) {
  ModelConfig config;
  config.architecture = "llama";
  MetadataReader reader(file, config.architecture);
  RefuseForeignKeys(reader);
  ReadDimensions(file, reader, &config);
  const double base = reader.Number("rope.freq_base", 1.001, 1e12, 10000.0);
  const RopeScaling scaling = ReadRopeScaling(reader, config.max_position_embeddings);
  // Each check presumes that those before it found nothing.
  if (reader.problems().empty()) CheckDimensions(file, reader, config);
  std::vector<double> factors;
  if (reader.problems().empty()) factors = ReadRopeFreqs(file, config.rope_dim, reader);
  if (!reader.problems().empty()) return Refuse(file, reader.problems());

  config.tie_word_embeddings = file.FindTensor(kOutput) == nullptr;
  config.rope_layout = RopeLayout::kInterleaved;
  config.rope_inv_freq = RopeInvFreq(base, config.rope_dim, factors, scaling);
  config.rope_attention_factor = static_cast<float>(scaling.attention_factor);

  std::vector<WeightSpec> specs;
  for (const Op& op : OpsOf(config)) {
    for (WeightSpec& spec : LlamaWeightsOf(config, op)) specs.push_back(std::move(spec));
  }
  const std::vector<std::string> problems = CheckTensors(file, specs, {kRopeFreqs});
  if (!problems.empty()) return Refuse(file, problems);
  return config;
}

std::vector<WeightSpec> LlamaWeightsOf(const ModelConfig& config, const Op& op) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.intermediate_size;
  const int64_t q = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_key_value_heads} * config.head_dim;
  const std::string blk = absl::StrCat("blk.", op.layer, ".");
  const std::string layer = absl::StrCat("model.layers.", op.layer, ".");
  const std::string module = ModuleName(op);
  switch (op.kind) {
    case OpKind::kEmbedding:
      return {{WeightRole::kEmbedding, kTokenEmbedding, module, config.vocab_size, hidden}};
    case OpKind::kAttention:
      return {
          Vector(WeightRole::kAttentionNorm, blk + "attn_norm", layer + "input_layernorm", hidden),
          Matrix(WeightRole::kQ, blk + "attn_q", module + ".q_proj", q, hidden),
          Matrix(WeightRole::kK, blk + "attn_k", module + ".k_proj", kv, hidden),
          Matrix(WeightRole::kV, blk + "attn_v", module + ".v_proj", kv, hidden),
          Matrix(WeightRole::kO, blk + "attn_output", module + ".o_proj", hidden, q),
      };
    case OpKind::kMlp:
      return {
          Vector(WeightRole::kMlpNorm, blk + "ffn_norm", layer + "post_attention_layernorm",
                 hidden),
          Matrix(WeightRole::kGate, blk + "ffn_gate", module + ".gate_proj", ffn, hidden),
          Matrix(WeightRole::kUp, blk + "ffn_up", module + ".up_proj", ffn, hidden),
          Matrix(WeightRole::kDown, blk + "ffn_down", module + ".down_proj", hidden, ffn),
      };
    case OpKind::kNorm:
      return {Vector(WeightRole::kOutputNorm, "output_norm", module, hidden)};
    case OpKind::kLmHead:
      return {{WeightRole::kLmHead, config.tie_word_embeddings ? kTokenEmbedding : kOutput, module,
               config.vocab_size, hidden}};
  }
  DT_CHECK(false);
}

}  // namespace dovetail::model
