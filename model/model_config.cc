#include "model/model_config.h"

#include <filesystem>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/arch/family_reader.h"
#include "model/arch/registry.h"
#include "model/arch/weights.h"
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

// Files that belong to a model, but are none.
absl::Status CheckKind(const GgufFile& file, const std::string& architecture) {
  const std::string type = file.GetString("general.type").value_or("model");
  absl::string_view advice;
  if (type == "adapter") {
    advice = "; a LoRA adapter must be merged into its model, whose file is then given";
  } else if (type == "mmproj" || architecture == "clip") {
    advice = "; this is the vision part of a model: give the file of its language model";
  } else if (type == "model") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": general.type is ", QuoteName(type),
                                                 ", architecture ", QuoteName(architecture),
                                                 ", expected a language model", advice));
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const GgufFile& file) {
  DT_ASSIGN_OR_RETURN(const std::string architecture, file.GetString("general.architecture"));
  DT_RETURN_IF_ERROR(CheckKind(file, architecture));
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

std::string ScaleTensor(absl::string_view tensor) {
  return absl::StrCat(absl::StripSuffix(tensor, ".weight"), ".scale");
}

absl::StatusOr<ModelFile> OpenModelFile(const std::string& path) {
  absl::Status incomplete;
  ModelFile opened;
  DT_ASSIGN_OR_RETURN(opened.file, GgufFile::Open(path, &incomplete));
  absl::StatusOr<ModelConfig> config = LoadModelConfig(*opened.file);
  if (!incomplete.ok()) {
    if (config.ok()) return incomplete;
    return absl::Status(incomplete.code(),
                        absl::StrCat(incomplete.message(), "\nof what the other shards hold, ",
                                     config.status().message()));
  }
  if (!config.ok()) return config.status();
  opened.config = *std::move(config);
  return opened;
}

std::vector<WeightSpec> WeightsOf(const ModelConfig& config, const Op& op) {
  const Family* family = FindFamily(config.architecture);
  DT_CHECK(family != nullptr);
  std::vector<WeightSpec> specs = family->weights_of(config, op);
  AddScales(config, op, &specs);
  return specs;
}

std::vector<Op> OpsOf(const ModelConfig& config) {
  std::vector<Op> ops = {{OpKind::kEmbedding}};
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    ops.push_back({OpKind::kAttention, layer});
    if (!config.HasExperts(layer)) {
      ops.push_back({OpKind::kMlp, layer});
      continue;
    }
    ops.push_back({OpKind::kRouter, layer});
    if (config.experts.shared_intermediate_size > 0) ops.push_back({OpKind::kSharedExperts, layer});
    ops.push_back({OpKind::kExperts, layer, 0, config.experts.count});
  }
  ops.push_back({OpKind::kNorm});
  ops.push_back({OpKind::kLmHead});
  return ops;
}

absl::Status CheckOps(const ModelConfig& config, absl::Span<const Op> ops) {
  size_t at = 0;
  const auto refuse = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ops are not those of the model in its order: ", what, " at op ", at,
                     " of ", ops.size()));
  };
  for (const Op& expected : OpsOf(config)) {
    if (expected.kind != OpKind::kExperts) {
      if (at == ops.size() || ops[at] != expected) return refuse(ModuleName(expected));
      ++at;
      continue;
    }
    std::vector<bool> seen(config.experts.count, false);
    int32_t count = 0;
    for (; at < ops.size() && ops[at].kind == OpKind::kExperts && ops[at].layer == expected.layer;
         ++at) {
      const Op& op = ops[at];
      if (op.expert_begin < 0 || op.expert_end > config.experts.count ||
          op.expert_begin >= op.expert_end) {
        return refuse(ModuleName(op));
      }
      for (int32_t e = op.expert_begin; e < op.expert_end; ++e) {
        if (seen[e]) return refuse(absl::StrCat("expert ", e, " is there twice"));
        seen[e] = true;
        ++count;
      }
    }
    if (count != config.experts.count) return refuse(ModuleName(expected));
  }
  return at == ops.size() ? absl::OkStatus() : refuse("more than there are");
}

std::string ModuleName(const Op& op) {
  switch (op.kind) {
    case OpKind::kEmbedding:
      return "model.embed_tokens";
    case OpKind::kAttention:
      return absl::StrCat("model.layers.", op.layer, ".self_attn");
    case OpKind::kMlp:
      return absl::StrCat("model.layers.", op.layer, ".mlp");
    case OpKind::kRouter:
      return absl::StrCat("model.layers.", op.layer, ".mlp.gate");
    case OpKind::kSharedExperts:
      return absl::StrCat("model.layers.", op.layer, ".mlp.shared_experts");
    case OpKind::kExperts:
      return absl::StrCat(
          "model.layers.", op.layer, ".mlp.experts[", op.expert_begin,
          op.expert_end - op.expert_begin > 1 ? absl::StrCat("-", op.expert_end - 1) : "", "]");
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
