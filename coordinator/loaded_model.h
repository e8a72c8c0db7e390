// LoadedModel: what the coordinator knows of a model: headers, tokenizer and chat template, and the
// shape of a step that model and configuration allow. Immutable after Open().
#ifndef DOVETAIL_COORDINATOR_LOADED_MODEL_H_
#define DOVETAIL_COORDINATOR_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/step_shape.h"
#include "coordinator/config.h"
#include "model/chat_template/chat_template.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

struct LoadedModel {
  std::string name;  // id in the API
  std::string path;  // absolute
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
  std::unique_ptr<model::Tokenizer> tokenizer;
  std::unique_ptr<model::ChatTemplate>
      chat_template;  // null: none, or one that does not parse (logged)
};

absl::StatusOr<LoadedModel> OpenModel(const ModelSettings& settings);

// The type that most bytes of the file's weights have, by its name: "Q4_K".
std::string MainWeightType(const model::GgufFile& file);

// Steps that are in flight at once, at most.
int MostLanes(const ModelSettings& settings);

// The limits of a step. InvalidArgument: a context longer than the model's, with both lengths.
absl::StatusOr<StepShape> MakeStepShape(const ModelSettings& settings,
                                        const model::ModelConfig& model_config);

// Bytes of the whole KV cache, all workers together.
int64_t KvCacheBytes(const model::ModelConfig& model_config, const StepShape& shape);

// "f16", or "f16 x2, q8_0 x59" where layers differ: a part of what determines bits.
std::string KvTypesText(const model::ModelConfig& model_config, const StepShape& shape);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_LOADED_MODEL_H_
