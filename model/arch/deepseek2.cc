// The `deepseek2` family: DeepSeek-V2 (Lite, V2.5), V3 (V3.1, R1), Kimi-K2, Moonlight. Multi-head
// latent attention; the first layers are dense; shared experts. V2 scores experts by softmax and V3
// by sigmoid plus a bias for the choice; the larger ones choose groups of experts first.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

// DeepSeek scales cosines and sines by mscale / mscale_all_dim, which is 1 in all its models, and
// scores by the square of mscale_all_dim's magnitude; the file has 0.1 mscale_all_dim.
void ReadMagnitude(FamilyReader& reader) {
  MetadataReader& keys = reader.keys();
  RopeScaling& scaling = reader.rope_scaling();
  const double multiplier = keys.Number("rope.scaling.yarn_log_multiplier", 0, 1e3, 0.0);
  if (scaling.kind != RopeScaling::Kind::kYarn || multiplier == 0) return;
  if (!keys.Has("rope.scaling.yarn_attn_factor")) {
    scaling.attention_factor /= YarnMagnitude(scaling.factor, 0.1);
  }
  const double magnitude = YarnMagnitude(scaling.factor, multiplier);
  ModelConfig& config = reader.config();
  config.attention_scale = static_cast<float>(config.attention_scale * magnitude * magnitude);
}

// Files made before late 2025 do not say how many groups there are: the published V2 (160 experts)
// and V3 (256) have 8, of which they choose 3 and 4; Lite, Kimi-K2 and Moonlight have none.
ExpertConfig UsualExperts(FamilyReader& reader) {
  constexpr int32_t kSigmoid = 2;  // of expert_gating_func
  const int32_t count = reader.keys().Count("expert_count", 1 << 14, 0);
  const bool sigmoid = reader.keys().Count("expert_gating_func", 3, 0) == kSigmoid;
  ExpertConfig usual;
  usual.score = sigmoid ? RouterScore::kSigmoid : RouterScore::kSoftmax;
  usual.choice_bias = sigmoid;
  usual.normalise = sigmoid;
  usual.group_score = sigmoid ? GroupScore::kSumOfTwo : GroupScore::kMax;
  if (count == (sigmoid ? 256 : 160)) {
    usual.num_groups = 8;
    usual.groups_used = sigmoid ? 4 : 3;
  }
  return usual;
}

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.ReadNextn();
  reader.ReadLatentAttention();
  ReadMagnitude(reader);
  reader.ReadExperts(UsualExperts(reader));
  reader.config().latent.merged_kv_b =
      reader.HasTensor("blk.0.attn_kv_b.weight") && !reader.HasTensor("blk.0.attn_k_b.weight");
}

}  // namespace

extern const Family kDeepSeek2 = {"deepseek2", &Read, &DecoderWeights};

}  // namespace dovetail::model
