#include "coordinator/http/openai_logprobs.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinity.
constexpr float kLowestLogprob = -9999.0f;

float Finite(float logprob) { return std::max(logprob, kLowestLogprob); }

Json ChatToken(const std::string& bytes, float logprob) {
  Json json;
  json["token"] = bytes;  // what is not UTF-8 becomes U+FFFD when it is written; `bytes` is exact
  json["logprob"] = Finite(logprob);
  json["bytes"] = Json::array();
  for (char byte : bytes) json["bytes"].push_back(static_cast<uint8_t>(byte));
  return json;
}

// OpenAI's form of a token that is no text by itself.
std::string CompletionToken(const std::string& bytes) {
  if (model::FindInvalidUtf8(bytes) == absl::string_view::npos) return bytes;
  std::string text = "bytes:";
  for (char byte : bytes) {
    absl::StrAppend(&text, "\\x", absl::Hex(static_cast<uint8_t>(byte), absl::kZeroPad2));
  }
  return text;
}

int CountCharacters(absl::string_view text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; }));
}

}  // namespace

Json ChatLogprobs(absl::Span<const TokenDetail> details) {
  Json json;
  json["content"] = Json::array();
  for (const TokenDetail& detail : details) {
    Json token = ChatToken(detail.bytes, detail.logprob.value_or(0.0f));
    token["top_logprobs"] = Json::array();
    for (const auto& [bytes, logprob] : detail.top) {
      token["top_logprobs"].push_back(ChatToken(bytes, logprob));
    }
    json["content"].push_back(std::move(token));
  }
  json["refusal"] = nullptr;
  return json;
}

Json CompletionLogprobs(absl::Span<const TokenDetail> details, int* text_offset) {
  Json tokens = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (const TokenDetail& detail : details) {
    tokens.push_back(CompletionToken(detail.bytes));
    offsets.push_back(*text_offset);
    if (detail.in_text) *text_offset += CountCharacters(detail.bytes);
    if (!detail.logprob.has_value()) {  // of the first token nothing is known
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(Finite(*detail.logprob));
    Json top = Json::object();
    for (const auto& [bytes, logprob] : detail.top) {
      top.emplace(CompletionToken(bytes), Finite(logprob));  // of equal names the likelier
    }
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace dovetail::coordinator
