#include "coordinator/loaded_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/weight_type.h"
#include "model/memory_plan.h"

namespace dovetail::coordinator {
namespace {

constexpr int kDefaultContext = 8192;
constexpr int kMostAutoLanes = 8;
// So many prompt rows of a step may tell their logprobs.
constexpr int kMinLogitRows = 64;
constexpr char kChatTemplateKey[] = "tokenizer.chat_template";

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

// The template of a file that the operator chose must be right; the model's own need not be.
absl::StatusOr<std::unique_ptr<model::ChatTemplate>> ReadChatTemplate(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream source;
  source << file.rdbuf();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  auto parsed = model::ChatTemplate::Parse(source.str());
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  return parsed;
}

std::unique_ptr<model::ChatTemplate> ParseChatTemplate(const model::GgufFile& file) {
  const absl::StatusOr<std::string> source = file.GetString(kChatTemplateKey);
  if (!source.ok()) return nullptr;
  auto parsed = model::ChatTemplate::Parse(*source);
  if (parsed.ok()) return *std::move(parsed);
  LogWarn(absl::StrCat("chat is not available: ", parsed.status().message()));
  return nullptr;
}

int BlocksOf(int64_t tokens) {
  return static_cast<int>((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
}

}  // namespace

absl::StatusOr<LoadedModel> OpenModel(const ModelSettings& settings) {
  LoadedModel model;
  model.path = AbsolutePath(settings.model);
  model.name = ModelNameOf(settings);
  DT_ASSIGN_OR_RETURN(model::ModelFile opened, model::OpenModelFile(settings.model));
  model.file = std::move(opened.file);
  model.config = std::move(opened.config);
  DT_ASSIGN_OR_RETURN(model.tokenizer, model::Tokenizer::Create(*model.file));
  if (settings.chat_template.empty()) {
    model.chat_template = ParseChatTemplate(*model.file);
  } else {
    DT_ASSIGN_OR_RETURN(model.chat_template, ReadChatTemplate(settings.chat_template));
  }
  return model;
}

std::string MainWeightType(const model::GgufFile& file) {
  std::map<std::string, int64_t> bytes;
  for (const model::GgufTensor& tensor : file.tensors()) {
    bytes[std::string(InfoOf(tensor.type).name)] += tensor.bytes;
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : most->first;
}

int MostLanes(const ModelSettings& settings) {
  if (settings.lanes > 0) return settings.lanes;
  return std::min<int>(kMostAutoLanes, static_cast<int>(settings.workers.size()) + 1);
}

absl::StatusOr<StepShape> MakeStepShape(const ModelSettings& settings,
                                        const model::ModelConfig& model_config) {
  const int longest = model_config.max_position_embeddings;
  StepShape shape;
  shape.context_length = settings.context_length;
  if (shape.context_length == 0) {
    shape.context_length = longest > 0 ? std::min(longest, kDefaultContext) : kDefaultContext;
    if (settings.kv_tokens > 0) {
      shape.context_length = std::min(shape.context_length, settings.kv_tokens);
    }
  } else if (longest > 0 && shape.context_length > longest) {
    return absl::InvalidArgumentError(absl::StrCat("`context_length` is ", shape.context_length,
                                                   ", the model was made for at most ", longest,
                                                   " tokens"));
  }
  const int64_t kv_tokens =
      settings.kv_tokens > 0 ? settings.kv_tokens : int64_t{2} * shape.context_length;
  shape.num_kv_blocks =
      std::max(BlocksOf(kv_tokens), settings.kv_tokens > 0 ? 1 : settings.max_batch_size);
  shape.num_swap_blocks = BlocksOf(settings.kv_swap_tokens);
  shape.kv_type = settings.kv_type;
  shape.vocab_size = model_config.vocab_size;
  shape.max_sequences = settings.max_batch_size;
  if (settings.stream_rows != 0) shape.stream_bytes = settings.stream_buffer;
  shape.gpu_links = settings.gpu_links;
  shape.link_slots = MostLanes(settings);
  // Every decode fits beside a full chunk of prefill.
  shape.max_rows = settings.chunk_size + settings.max_batch_size;
  const int logit_rows = settings.max_logit_rows > 0
                             ? settings.max_logit_rows
                             : std::max(settings.max_batch_size, kMinLogitRows);
  shape.max_logit_rows = std::min(logit_rows, shape.max_rows);
  return shape;
}

int64_t KvCacheBytes(const model::ModelConfig& model_config, const StepShape& shape) {
  return model::KvBytes(model_config, model::OpsOf(model_config), shape);
}

std::string KvTypesText(const model::ModelConfig& model_config, const StepShape& shape) {
  std::vector<std::pair<KvType, int>> runs;
  for (int32_t layer = 0; layer < model_config.num_hidden_layers; ++layer) {
    const KvType type = shape.KvTypeOf(layer);
    if (runs.empty() || runs.back().first != type) runs.emplace_back(type, 0);
    ++runs.back().second;
  }
  if (runs.size() == 1) return KvTypeName(runs[0].first);
  return absl::StrJoin(runs, ", ", [](std::string* out, const std::pair<KvType, int>& run) {
    absl::StrAppend(out, KvTypeName(run.first), " x", run.second);
  });
}

}  // namespace dovetail::coordinator
