#include "coordinator/http/ollama_api.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/http/embeddings.h"
#include "coordinator/http/ollama_encoder.h"
#include "coordinator/http/ollama_request.h"
#include "coordinator/http/openai_request.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kChatPath = "/api/chat";
constexpr absl::string_view kGeneratePath = "/api/generate";
constexpr absl::string_view kEmbedPath = "/api/embed";
constexpr absl::string_view kEmbeddingsPath = "/api/embeddings";  // as it was before
constexpr absl::string_view kShowPath = "/api/show";
constexpr absl::string_view kTagsPath = "/api/tags";
constexpr absl::string_view kPsPath = "/api/ps";
constexpr absl::string_view kVersionPath = "/api/version";

struct RefusedPath {
  absl::string_view path;
  absl::string_view methods;
  absl::string_view reason;
};
constexpr absl::string_view kNoManaging =
    "models are not managed over this API: the configuration names those that are served";
constexpr RefusedPath kRefusedPaths[] = {
    {"/api/pull", "POST, OPTIONS", kNoManaging},     {"/api/push", "POST, OPTIONS", kNoManaging},
    {"/api/create", "POST, OPTIONS", kNoManaging},   {"/api/copy", "POST, OPTIONS", kNoManaging},
    {"/api/delete", "DELETE, OPTIONS", kNoManaging},
};

const RefusedPath* FindRefused(absl::string_view path) {
  const auto* found = std::find_if(std::begin(kRefusedPaths), std::end(kRefusedPaths),
                                   [path](const RefusedPath& r) { return r.path == path; });
  return found == std::end(kRefusedPaths) ? nullptr : found;
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// 134515008 -> "134.52M", as Ollama writes it.
std::string ParameterSize(int64_t count) {
  if (count >= 1'000'000'000) return absl::StrFormat("%.1fB", static_cast<double>(count) / 1e9);
  return absl::StrFormat("%.2fM", static_cast<double>(count) / 1e6);
}

Json Details(const ModelEntry& model) {
  Json details;
  details["parent_model"] = "";
  details["format"] = "gguf";
  if (model.generation != nullptr) {
    const model::ModelConfig& config = model.generation->config();
    details["family"] = config.architecture;
    details["families"] = Json::array({config.architecture});
    details["parameter_size"] = ParameterSize(config.parameter_count);
  }
  details["quantization_level"] = model.facts.quantization;
  return details;
}

Json ListedModel(const ModelEntry& model) {
  Json json;
  json["name"] = model.name;
  json["model"] = model.name;
  json["size"] = model.facts.file_bytes;
  json["digest"] = absl::StrFormat("%016x", model.facts.fingerprint);
  json["details"] = Details(model);
  return json;
}

HttpResponse Tags(const ModelDirectory& models) {
  Json list = Json::array();
  for (const ModelEntry& model : models.models()) {
    Json& json = list.emplace_back(ListedModel(model));
    json["modified_at"] = OllamaTime(absl::FromUnixSeconds(model.created));
  }
  return JsonResponse(200, Dump({{"models", std::move(list)}}));
}

// Everything is in memory, and stays there.
HttpResponse RunningModels(const ModelDirectory& models) {
  Json list = Json::array();
  for (const ModelEntry& model : models.models()) {
    Json& json = list.emplace_back(ListedModel(model));
    json["expires_at"] = "9999-12-31T23:59:59Z";
    json["size_vram"] = 0;
    json["context_length"] = model.context_length;
  }
  return JsonResponse(200, Dump({{"models", std::move(list)}}));
}

MaybeError ParseCall(const CallContext& context, OllamaEndpoint endpoint, const HttpRequest& http,
                     ParsedCall* call) {
  nlohmann::json body;
  nlohmann::json openai;
  OllamaTranslation translation;
  if (MaybeError error = ParseJson(http.body, kMaxJsonDepth, &body)) return error;
  if (!body.is_object()) return InvalidField("", "the request body must be a JSON object");
  std::string name;
  if (MaybeError error = ReadString(body, "model", &name)) return error;
  if (MaybeError error = FindModel(context, WithoutLatestTag(std::move(name)), &call->model)) {
    return error;
  }
  if (MaybeError error = TranslateOllamaRequest(endpoint, body, call->model->context_length,
                                                &openai, &translation)) {
    return error;
  }
  call->stream = openai["stream"].get<bool>();
  auto encoder = std::make_unique<OllamaEncoder>(endpoint, body["model"].get<std::string>());
  if (translation.only_loads) {
    call->answer = encoder->Loaded(call->stream);
    return std::nullopt;
  }
  OpenAiRequest request;
  if (MaybeError error = ParseOpenAiRequest(translation.endpoint, openai.dump(), &request)) {
    return InOllamaWords(*std::move(error));
  }
  call->generations = std::move(request.generations);
  call->unknown_fields = std::move(translation.unknown_fields);
  call->encoder = std::move(encoder);
  return std::nullopt;
}

}  // namespace

absl::string_view OllamaApi::AllowedMethods(absl::string_view path) const {
  if (path == kChatPath || path == kGeneratePath || path == kShowPath || path == kEmbedPath ||
      path == kEmbeddingsPath) {
    return "POST, OPTIONS";
  }
  if (path == kTagsPath || path == kPsPath || path == kVersionPath) return "GET, HEAD, OPTIONS";
  const RefusedPath* refused = FindRefused(path);
  return refused != nullptr ? refused->methods : "";
}

std::shared_ptr<HttpCall> OllamaApi::Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  if (request.path == kChatPath || request.path == kGeneratePath) {
    return Generate(std::move(request), std::move(reply));
  }
  if (request.path == kEmbedPath || request.path == kEmbeddingsPath) {
    const EmbeddingEndpoint endpoint = request.path == kEmbedPath
                                           ? EmbeddingEndpoint::kOllamaEmbed
                                           : EmbeddingEndpoint::kOllamaEmbeddings;
    return AnswerEmbedding(context_, this, endpoint, std::move(request), std::move(reply));
  }
  const ModelDirectory& models = *context_->api.models;
  if (const RefusedPath* refused = FindRefused(request.path)) {
    ApiError error;
    error.status = 501;
    error.message = std::string(refused->reason);
    reply->Send(OllamaError(error));
  } else if (request.path == kShowPath) {
    reply->Send(Show(request));
  } else if (request.path == kTagsPath) {
    reply->Send(Tags(models));
  } else if (request.path == kPsPath) {
    reply->Send(RunningModels(models));
  } else {
    reply->Send(JsonResponse(200, Dump({{"version", DOVETAIL_VERSION}})));
  }
  return nullptr;
}

std::shared_ptr<HttpCall> OllamaApi::Generate(HttpRequest request,
                                              std::shared_ptr<HttpReply> reply) {
  const OllamaEndpoint endpoint =
      request.path == kChatPath ? OllamaEndpoint::kChat : OllamaEndpoint::kGenerate;
  auto parser = [context = context_, endpoint](const HttpRequest& http, ParsedCall* call) {
    return ParseCall(*context, endpoint, http, call);
  };
  auto call = std::make_shared<GenerationCall>(context_, this, parser, std::move(request),
                                               std::move(reply));
  call->Begin();
  return call;
}

HttpResponse OllamaApi::Show(const HttpRequest& request) const {
  nlohmann::json body;
  std::string name;
  if (MaybeError error = ParseJson(request.body, kMaxJsonDepth, &body)) return Error(*error);
  if (!body.is_object()) return Error(InvalidField("", "the request body must be a JSON object"));
  for (const char* field : {"name", "model"}) {
    if (MaybeError error = ReadString(body, field, &name)) return Error(*error);
  }
  const auto found = context_->api.models->Find(WithoutLatestTag(name));
  if (!found.ok() || name.empty()) {
    return Error(ModelNotFound(absl::StrCat("model '", name, "' not found")));
  }
  const ModelEntry& model = **found;
  Json json;
  json["modelfile"] = "";
  json["parameters"] = "";
  json["template"] = model.facts.chat_template;
  json["details"] = Details(model);
  Json& info = json["model_info"];
  info = Json::object();
  if (model.generation != nullptr) {
    const model::ModelConfig& config = model.generation->config();
    info["general.architecture"] = config.architecture;
    info["general.parameter_count"] = config.parameter_count;
    info[config.architecture + ".context_length"] = model.context_length;
    info[config.architecture + ".embedding_length"] = config.hidden_size;
    info[config.architecture + ".block_count"] = config.num_hidden_layers;
  }
  json["capabilities"] = Json::array({"completion", "embedding"});
  json["modified_at"] = OllamaTime(absl::FromUnixSeconds(model.created));
  return JsonResponse(200, Dump(json));
}

HttpResponse OllamaApi::Error(const ApiError& error) const { return OllamaError(error); }

}  // namespace dovetail::coordinator
