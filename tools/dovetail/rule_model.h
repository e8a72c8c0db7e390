// RuleModel: the model that rules are read for, from whatever a person has of it: a GGUF file, a
// Hugging Face configuration, or a dumped module tree.
#ifndef DOVETAIL_TOOLS_DOVETAIL_RULE_MODEL_H_
#define DOVETAIL_TOOLS_DOVETAIL_RULE_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/tree_shape.h"
#include "model/model_config.h"

namespace CLI {
class App;
}

namespace dovetail::tools {

struct RuleModelFlags {
  std::string model;   // GGUF
  std::string config;  // Hugging Face's config.json, or a file that holds one
  std::string tree;    // JSON, may be compressed
};
void AddRuleModelFlags(CLI::App* app, RuleModelFlags* flags);

struct RuleModel {
  coordinator::ktransformers::ModuleTree tree;                 // empty without any flag
  std::optional<coordinator::ktransformers::TreeShape> shape;  // not of a dumped tree
  int64_t hidden_size = 0;                                     // 0: not known
  std::map<std::string, int64_t, std::less<>> bytes;           // of a GGUF file's modules

  std::function<int64_t(absl::string_view)> bytes_of() const;
};

// InvalidArgument: more than one of the flags, or a file that is not what it should be.
absl::StatusOr<RuleModel> ReadRuleModel(const RuleModelFlags& flags);

// A Hugging Face configuration in place of a model: its header, without data. `weight_type` is that
// of its matrices.
absl::StatusOr<model::ModelFile> OpenModelConfig(const std::string& path,
                                                 const std::string& weight_type);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_RULE_MODEL_H_
