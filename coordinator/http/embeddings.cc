#include "coordinator/http/embeddings.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/http/ollama_request.h"
#include "coordinator/http/openai_request.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kOpenAiFields[] = {"model", "input", "encoding_format", "dimensions",
                                               "user"};
constexpr absl::string_view kOllamaFields[] = {"model",      "input",   "prompt",    "truncate",
                                               "dimensions", "options", "keep_alive"};

MaybeError ReadIds(const Json& list, const std::string& name, std::vector<int32_t>* ids) {
  for (size_t i = 0; i < list.size(); ++i) {
    const bool is_id = list[i].is_number_unsigned() &&
                       list[i].get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!is_id) {
      return InvalidField("input", absl::StrCat("`", name, "[", i, "]` must be a token id"));
    }
    ids->push_back(list[i].get<int32_t>());
  }
  return std::nullopt;
}

// A string, a list of strings, a list of token ids, or a list of those.
MaybeError ReadInputs(const Json& value, absl::string_view name, EmbeddingRequest* request) {
  if (value.is_string()) {
    request->inputs.emplace_back(value.get<std::string>());
    return std::nullopt;
  }
  if (!value.is_array()) {
    return WrongType(name, "a string, or an array of strings or token ids", value);
  }
  if (value.empty()) return InvalidField(name, absl::StrCat("`", name, "` must not be empty"));
  if (value[0].is_number()) {
    return ReadIds(
        value, std::string(name),
        &std::get<std::vector<int32_t>>(request->inputs.emplace_back(std::vector<int32_t>())));
  }
  if (value.size() > EmbeddingService::kMaxInputs) {
    return InvalidField(name,
                        absl::StrCat("`", name, "` may have at most ", EmbeddingService::kMaxInputs,
                                     " elements, got ", value.size()));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string item = absl::StrCat(name, "[", i, "]");
    if (value[i].is_string()) {
      request->inputs.emplace_back(value[i].get<std::string>());
    } else if (value[i].is_array()) {
      std::vector<int32_t> ids;
      if (MaybeError error = ReadIds(value[i], item, &ids)) return error;
      request->inputs.emplace_back(std::move(ids));
    } else {
      return WrongType(item, "a string or an array of token ids", value[i]);
    }
  }
  return std::nullopt;
}

MaybeError ReadFormat(const Json& body, ParsedEmbedding* parsed) {
  std::string format = "float";
  if (MaybeError error = ReadString(body, "encoding_format", &format)) return error;
  if (format != "float" && format != "base64") {
    return InvalidField("encoding_format", "`encoding_format` must be \"float\" or \"base64\"");
  }
  parsed->base64 = format == "base64";
  return std::nullopt;
}

// The shortest text that reads back as the same float.
void AppendNumber(float value, std::string* out) {
  char text[32];
  const auto [end, error] = std::to_chars(std::begin(text), std::end(text), value);
  out->append(text, error == std::errc() ? end : text);
}

std::string VectorText(const std::vector<float>& vector, bool base64) {
  if (base64) {
    const auto* bytes = reinterpret_cast<const char*>(vector.data());
    return absl::StrCat(
        "\"", absl::Base64Escape(absl::string_view(bytes, vector.size() * sizeof(float))), "\"");
  }
  std::string text = "[";
  for (size_t i = 0; i < vector.size(); ++i) {
    if (i > 0) text += ',';
    AppendNumber(vector[i], &text);
  }
  return text + "]";
}

// One call; the I/O thread's, but for Start().
class EmbeddingCall : public HttpCall, public std::enable_shared_from_this<EmbeddingCall> {
 public:
  EmbeddingCall(CallContext* context, const HttpDialect* dialect, EmbeddingEndpoint endpoint,
                HttpRequest request, std::shared_ptr<HttpReply> reply)
      : context_(context),
        dialect_(dialect),
        endpoint_(endpoint),
        request_(std::move(request)),
        reply_(std::move(reply)) {}

  // Work thread.
  void Start() {
    auto parsed = std::make_shared<ParsedEmbedding>();
    if (MaybeError error = Parse(parsed.get())) {
      return context_->executor->OnIoThread(
          [self = shared_from_this(), error = *std::move(error)] { self->Fail(error); });
    }
    EmbeddingRequest request = std::move(parsed->request);
    request.deadline = request_.received + context_->request_timeout;
    request.tenant = request_.tenant;
    const std::shared_ptr<HttpExecutor> executor = context_->executor;
    const uint64_t id = model_->embeddings->Start(
        std::move(request),
        [self = shared_from_this(), executor, parsed](const absl::StatusOr<Embeddings>& result) {
          executor->OnIoThread([self, parsed, result] { self->Finish(*parsed, result); });
        });
    executor->OnIoThread([self = shared_from_this(), id] { self->OnStarted(id); });
  }

  void OnSilence() override {}
  void OnGone() override {
    reply_.reset();
    if (id_ != 0) model_->embeddings->Cancel(id_);
  }
  void OnShutdown() override {
    Fail(ErrorFromStatus(absl::UnavailableError("the server is shutting down"), 0));
    if (id_ != 0) model_->embeddings->Cancel(id_);
  }

 private:
  MaybeError Parse(ParsedEmbedding* parsed) {
    if (MaybeError error = ParseEmbeddingRequest(endpoint_, request_.body, parsed)) return error;
    for (const std::string& name : parsed->unknown_fields) {
      if (!context_->unknown_fields.ShouldLog(name)) continue;
      LogInfo(absl::StrCat("unknown request field `", absl::Utf8SafeCHexEscape(name.substr(0, 64)),
                           "` is accepted and ignored"));
    }
    const std::string name =
        endpoint_ == EmbeddingEndpoint::kOpenAi ? parsed->model : WithoutLatestTag(parsed->model);
    if (MaybeError error = FindModel(*context_, name, &model_)) return error;
    if (model_->embeddings == nullptr) {
      return ErrorFromStatus(absl::UnavailableError("this server makes no embeddings"), 0);
    }
    const int hidden_size = model_->generation->config().hidden_size;
    if (!parsed->dimensions.has_value() || *parsed->dimensions == hidden_size) return std::nullopt;
    return UnsupportedField("dimensions",
                            absl::StrCat("`dimensions` cannot be chosen: this model's "
                                         "vectors have ",
                                         hidden_size));
  }

  void OnStarted(uint64_t id) {
    id_ = id;
    if (reply_ == nullptr) model_->embeddings->Cancel(id);  // it has left meanwhile
  }

  void Finish(const ParsedEmbedding& parsed, const absl::StatusOr<Embeddings>& result) {
    if (reply_ == nullptr) return;
    if (!result.ok()) {
      return Fail(ErrorFromStatus(result.status(), context_->RetrySeconds(*model_)));
    }
    reply_->Annotate(
        absl::StrCat(result->prompt_tokens, " tokens, ", result->vectors.size(), " embeddings"));
    const std::shared_ptr<HttpReply> reply = std::move(reply_);
    reply->Send(JsonResponse(200, EmbeddingBody(endpoint_, parsed, model_->name, *result,
                                                absl::Now() - request_.received)));
  }

  void Fail(const ApiError& error) {
    if (reply_ == nullptr) return;
    const std::shared_ptr<HttpReply> reply = std::move(reply_);
    reply->Annotate(error.message);
    reply->Send(dialect_->Error(error));
  }

  CallContext* const context_;
  const HttpDialect* const dialect_;
  const EmbeddingEndpoint endpoint_;
  const HttpRequest request_;
  std::shared_ptr<HttpReply> reply_;   // null once answered, or when the client has left
  const ModelEntry* model_ = nullptr;  // set on the work thread, before there is an id
  uint64_t id_ = 0;
};

}  // namespace

MaybeError ParseEmbeddingRequest(EmbeddingEndpoint endpoint, absl::string_view body_text,
                                 ParsedEmbedding* parsed) {
  Json body;
  if (MaybeError error = ParseJson(body_text, kMaxJsonDepth, &body)) return error;
  if (!body.is_object()) return InvalidField("", "the request body must be a JSON object");
  const bool openai = endpoint == EmbeddingEndpoint::kOpenAi;
  const char* name = endpoint == EmbeddingEndpoint::kOllamaEmbeddings ? "prompt" : "input";
  if (MaybeError error = ReadString(body, "model", &parsed->model)) return error;
  const Json* inputs = FindMember(body, name);
  if (inputs == nullptr) return InvalidField(name, absl::StrCat("`", name, "` is required"));
  if (MaybeError error = ReadInputs(*inputs, name, &parsed->request)) return error;
  if (openai) {
    if (MaybeError error = ReadFormat(body, parsed)) return error;
  } else {
    parsed->request.truncate = true;
    if (MaybeError error = ReadBool(body, "truncate", &parsed->request.truncate)) return error;
  }
  if (MaybeError error = ReadInt(body, "dimensions", &parsed->dimensions)) return error;
  for (const auto& [key, value] : body.items()) {
    const bool known = openai
                           ? std::find(std::begin(kOpenAiFields), std::end(kOpenAiFields), key) !=
                                 std::end(kOpenAiFields)
                           : std::find(std::begin(kOllamaFields), std::end(kOllamaFields), key) !=
                                 std::end(kOllamaFields);
    if (!known) parsed->unknown_fields.push_back(key);
  }
  return std::nullopt;
}

std::string EmbeddingBody(EmbeddingEndpoint endpoint, const ParsedEmbedding& parsed,
                          const std::string& model_name, const Embeddings& embeddings,
                          absl::Duration taken) {
  const auto quoted = [](const std::string& text) {
    return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  if (endpoint == EmbeddingEndpoint::kOllamaEmbeddings) {
    return absl::StrCat("{\"embedding\":", VectorText(embeddings.vectors.at(0), false), "}");
  }
  const bool openai = endpoint == EmbeddingEndpoint::kOpenAi;
  std::string list;
  for (size_t i = 0; i < embeddings.vectors.size(); ++i) {
    if (i > 0) list += ',';
    const std::string text = VectorText(embeddings.vectors[i], parsed.base64);
    absl::StrAppend(&list, openai ? absl::StrCat("{\"object\":\"embedding\",\"index\":", i,
                                                 ",\"embedding\":", text, "}")
                                  : text);
  }
  if (openai) {
    return absl::StrCat("{\"object\":\"list\",\"data\":[", list, "],\"model\":", quoted(model_name),
                        ",\"usage\":{\"prompt_tokens\":", embeddings.prompt_tokens,
                        ",\"total_tokens\":", embeddings.prompt_tokens, "}}");
  }
  return absl::StrCat("{\"model\":", quoted(parsed.model), ",\"embeddings\":[", list,
                      "],\"total_duration\":", absl::ToInt64Nanoseconds(taken),
                      ",\"load_duration\":0,\"prompt_eval_count\":", embeddings.prompt_tokens, "}");
}

std::shared_ptr<HttpCall> AnswerEmbedding(CallContext* context, const HttpDialect* dialect,
                                          EmbeddingEndpoint endpoint, HttpRequest request,
                                          std::shared_ptr<HttpReply> reply) {
  auto call = std::make_shared<EmbeddingCall>(context, dialect, endpoint, std::move(request),
                                              std::move(reply));
  context->executor->OnWorkThread([call] { call->Start(); });
  return call;
}

}  // namespace dovetail::coordinator
