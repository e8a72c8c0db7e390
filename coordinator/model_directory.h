// ModelDirectory: the models of a server as its APIs see them, found by what a request calls them.
//
// Immutable; thread-safe. What it borrows outlives it.
#ifndef DOVETAIL_COORDINATOR_MODEL_DIRECTORY_H_
#define DOVETAIL_COORDINATOR_MODEL_DIRECTORY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/embedding.h"
#include "coordinator/engine.h"
#include "coordinator/generation.h"

namespace dovetail::coordinator {

// What Ollama's clients are told of a model.
struct ModelFacts {
  int64_t file_bytes = 0;
  uint64_t fingerprint = 0;
  std::string quantization;   // "Q4_K": the type that most of its bytes have
  std::string chat_template;  // the one that is used; "": none
};

// One model: its names, who answers for it, and what is told about it.
struct ModelEntry {
  std::string name;  // id in the APIs
  std::vector<std::string> aliases;
  // Borrowed. Null: generation is refused (the model has no vocabulary); it is still listed.
  GenerationService* generation = nullptr;
  EmbeddingService* embeddings = nullptr;  // the same; null: embeddings are refused
  const Engine* engine = nullptr;          // for Retry-After; may be null
  int64_t created = 0;                     // seconds since 1970
  ModelFacts facts;
  int context_length = 0;          // 0: not told
  std::string system_fingerprint;  // numerics and KV type, such as "dovetail-cis1-f16"

  EngineStats stats() const { return engine == nullptr ? EngineStats() : engine->stats(); }
};

class ModelDirectory {
 public:
  ModelDirectory() = default;
  // No name and no alias twice.
  explicit ModelDirectory(std::vector<ModelEntry> models) : models_(std::move(models)) {}

  // In the order of the configuration.
  const std::vector<ModelEntry>& models() const { return models_; }
  bool has_several() const { return models_.size() > 1; }

  // By name or alias; "" means the only one. NotFound: "The model `x` does not exist";
  // InvalidArgument: there are several and none was named, with their names.
  absl::StatusOr<const ModelEntry*> Find(absl::string_view name) const;

 private:
  std::vector<ModelEntry> models_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_MODEL_DIRECTORY_H_
