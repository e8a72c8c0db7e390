#include "model/model_config.h"

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/arch/family_reader.h"
#include "model/arch/registry.h"
#include "model/gguf/gguf_parser.h"
#include "model/gguf/shard_paths.h"

namespace dovetail::model {
namespace {

std::string FileStem(const GgufFile& file) {
  const std::string& path = file.shard_paths()[0];
  ShardName shard;
  if (ParseShardName(path, &shard)) return std::filesystem::path(shard.stem).filename().string();
  return std::filesystem::path(path).stem().string();
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const GgufFile& file) {
  DT_ASSIGN_OR_RETURN(const std::string architecture, file.GetString("general.architecture"));
  const absl::StatusOr<std::string> type = file.GetString("general.type");
  if (type.ok() && *type != "model") {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": general.type is ", QuoteName(*type), ", expected \"model\""));
  }
  const Family* family = FindFamily(architecture);
  if (family == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": architecture ", QuoteName(architecture),
        " is not supported (supported: ", absl::StrJoin(SupportedArchitectures(), ", "), ")"));
  }
  DT_ASSIGN_OR_RETURN(ModelConfig config, LoadFamily(file, *family));
  const absl::StatusOr<std::string> name = file.GetString("general.name");
  config.name = name.ok() && !name->empty() ? *name : FileStem(file);
  for (const GgufTensor& tensor : file.tensors()) config.parameter_count += tensor.elements();
  return config;
}

std::vector<WeightSpec> WeightsOf(const ModelConfig& config, const Op& op) {
  const Family* family = FindFamily(config.architecture);
  DT_CHECK(family != nullptr);
  return family->weights_of(config, op);
}

std::vector<Op> OpsOf(const ModelConfig& config) {
  std::vector<Op> ops = {{OpKind::kEmbedding}};
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    ops.push_back({OpKind::kAttention, layer});
    ops.push_back({OpKind::kMlp, layer});
  }
  ops.push_back({OpKind::kNorm});
  ops.push_back({OpKind::kLmHead});
  return ops;
}

std::string ModuleName(const Op& op) {
  switch (op.kind) {
    case OpKind::kEmbedding:
      return "model.embed_tokens";
    case OpKind::kAttention:
      return absl::StrCat("model.layers.", op.layer, ".self_attn");
    case OpKind::kMlp:
      return absl::StrCat("model.layers.", op.layer, ".mlp");
    case OpKind::kNorm:
      return "model.norm";
    case OpKind::kLmHead:
      return "lm_head";
  }
  DT_CHECK(false);
}

std::vector<std::string> SupportedArchitectures() {
  std::vector<std::string> names;
  for (const Family* family : Families()) names.emplace_back(family->architecture);
  return names;
}

}  // namespace dovetail::model
