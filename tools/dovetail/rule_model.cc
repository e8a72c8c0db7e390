#include "tools/dovetail/rule_model.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/gzip.h"
#include "base/status_macros.h"
#include "base/weight_type.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "model/gguf/gguf_file.h"
#include "model/hf_config.h"

namespace dovetail::tools {
namespace {

namespace kt = coordinator::ktransformers;

constexpr uint64_t kMostBytes = 256 << 20;

absl::StatusOr<RuleModel> FromGguf(const std::string& path) {
  DT_ASSIGN_OR_RETURN(const model::ModelFile opened, model::OpenModelFile(path));
  const auto& [file, config] = opened;
  RuleModel model;
  DT_ASSIGN_OR_RETURN(model.shape, kt::ShapeFromModel(config));
  model.hidden_size = config.hidden_size;
  for (const model::GgufTensor& tensor : file->tensors()) {
    std::string module = kt::ModuleOfTensor(*model.shape, tensor.name);
    const size_t expert = module.find(".experts.");
    constexpr size_t kListLength = 8;  // ".experts"
    if (expert != std::string::npos) module.resize(expert + kListLength);
    model.bytes[module] += static_cast<int64_t>(tensor.bytes);
  }
  return model;
}

}  // namespace

void AddRuleModelFlags(CLI::App* app, RuleModelFlags* flags) {
  app->add_option("--model", flags->model, "GGUF file, any shard, or a directory");
  app->add_option("--model-config", flags->config, "Hugging Face configuration (config.json)");
  app->add_option("--tree", flags->tree, "dumped module tree, JSON or JSON.gz");
}

std::function<int64_t(absl::string_view)> RuleModel::bytes_of() const {
  if (bytes.empty()) return nullptr;
  return [this](absl::string_view module) {
    const auto it = bytes.find(std::string(module));
    return it == bytes.end() ? 0 : it->second;
  };
}

absl::StatusOr<RuleModel> ReadRuleModel(const RuleModelFlags& flags) {
  const int given =
      (flags.model.empty() ? 0 : 1) + (flags.config.empty() ? 0 : 1) + (flags.tree.empty() ? 0 : 1);
  if (given > 1) {
    return absl::InvalidArgumentError("give only one of --model, --model-config and --tree");
  }
  RuleModel model;
  if (!flags.tree.empty()) {
    DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.tree, kMostBytes));
    DT_ASSIGN_OR_RETURN(model.tree, kt::ReadModuleTree(text, flags.tree));
    return model;
  }
  if (!flags.config.empty()) {
    DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(flags.config, kMostBytes));
    DT_ASSIGN_OR_RETURN(model.shape, kt::ShapeFromHuggingFace(text, flags.config));
    model.hidden_size = model.shape->hidden_size;
  } else if (!flags.model.empty()) {
    DT_ASSIGN_OR_RETURN(model, FromGguf(flags.model));
  }
  if (model.shape) model.tree = kt::BuildTree(*model.shape);
  return model;
}

absl::StatusOr<model::ModelFile> OpenModelConfig(const std::string& path,
                                                 const std::string& weight_type) {
  DT_ASSIGN_OR_RETURN(const std::string text, ReadMaybeGzipped(path, kMostBytes));
  for (const WeightType type : SupportedWeightTypes()) {
    if (InfoOf(type).name != weight_type) continue;
    model::ModelFile opened;
    DT_ASSIGN_OR_RETURN(opened.file, model::HeaderFromHfConfig(text, path, type));
    DT_ASSIGN_OR_RETURN(opened.config, model::LoadModelConfig(*opened.file));
    return opened;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--weight-type ", weight_type, ": not a weight type such as Q4_K or F16"));
}

}  // namespace dovetail::tools
