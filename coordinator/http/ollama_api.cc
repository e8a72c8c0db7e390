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
    "models are not managed over this API: the configuration names the one that is served";
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

Json Details(const HttpApi& api) {
  Json details;
  details["parent_model"] = "";
  details["format"] = "gguf";
  if (api.generation != nullptr) {
    const model::ModelConfig& config = api.generation->config();
    details["family"] = config.architecture;
    details["families"] = Json::array({config.architecture});
    details["parameter_size"] = ParameterSize(config.parameter_count);
  }
  details["quantization_level"] = api.facts.quantization;
  return details;
}

Json ListedModel(const HttpApi& api) {
  Json model;
  model["name"] = api.model_name;
  model["model"] = api.model_name;
  model["size"] = api.facts.file_bytes;
  model["digest"] = absl::StrFormat("%016x", api.facts.fingerprint);
  model["details"] = Details(api);
  return model;
}

HttpResponse Tags(const HttpApi& api) {
  Json model = ListedModel(api);
  model["modified_at"] = OllamaTime(absl::FromUnixSeconds(api.model_created));
  return JsonResponse(200, Dump({{"models", Json::array({std::move(model)})}}));
}

// Everything is in memory, and stays there.
HttpResponse RunningModels(const HttpApi& api) {
  Json model = ListedModel(api);
  model["expires_at"] = "9999-12-31T23:59:59Z";
  model["size_vram"] = 0;
  model["context_length"] = api.context_length;
  return JsonResponse(200, Dump({{"models", Json::array({std::move(model)})}}));
}

MaybeError ParseCall(const CallContext& context, OllamaEndpoint endpoint, const HttpRequest& http,
                     ParsedCall* call) {
  nlohmann::json body;
  nlohmann::json openai;
  OllamaTranslation translation;
  if (MaybeError error = ParseJson(http.body, kMaxJsonDepth, &body)) return error;
  if (!body.is_object()) return InvalidField("", "the request body must be a JSON object");
  if (MaybeError error = TranslateOllamaRequest(endpoint, body, context.api.context_length, &openai,
                                                &translation)) {
    return error;
  }
  call->model = openai["model"].get<std::string>();
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
  const HttpApi& api = context_->api;
  if (const RefusedPath* refused = FindRefused(request.path)) {
    ApiError error;
    error.status = 501;
    error.message = std::string(refused->reason);
    reply->Send(OllamaError(error));
  } else if (request.path == kShowPath) {
    reply->Send(Show(request));
  } else if (request.path == kTagsPath) {
    reply->Send(Tags(api));
  } else if (request.path == kPsPath) {
    reply->Send(RunningModels(api));
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
  const HttpApi& api = context_->api;
  nlohmann::json body;
  std::string model;
  if (MaybeError error = ParseJson(request.body, kMaxJsonDepth, &body)) return Error(*error);
  if (!body.is_object()) return Error(InvalidField("", "the request body must be a JSON object"));
  for (const char* name : {"name", "model"}) {
    if (MaybeError error = ReadString(body, name, &model)) return Error(*error);
  }
  if (WithoutLatestTag(model) != api.model_name) {
    return Error(ModelNotFound(absl::StrCat("model '", model, "' not found")));
  }
  Json json;
  json["modelfile"] = "";
  json["parameters"] = "";
  json["template"] = api.facts.chat_template;
  json["details"] = Details(api);
  Json& info = json["model_info"];
  info = Json::object();
  if (api.generation != nullptr) {
    const model::ModelConfig& config = api.generation->config();
    info["general.architecture"] = config.architecture;
    info["general.parameter_count"] = config.parameter_count;
    info[config.architecture + ".context_length"] = api.context_length;
    info[config.architecture + ".embedding_length"] = config.hidden_size;
    info[config.architecture + ".block_count"] = config.num_hidden_layers;
  }
  json["capabilities"] = Json::array({"completion", "embedding"});
  json["modified_at"] = OllamaTime(absl::FromUnixSeconds(api.model_created));
  return JsonResponse(200, Dump(json));
}

HttpResponse OllamaApi::Error(const ApiError& error) const { return OllamaError(error); }

}  // namespace dovetail::coordinator
