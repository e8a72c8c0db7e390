#include "coordinator/http/openai_request.h"

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr OpenAiEndpoint kChat = OpenAiEndpoint::kChat;
constexpr OpenAiEndpoint kCompletion = OpenAiEndpoint::kCompletion;

// A body that is right but for `fields`.
std::string ChatBody(const std::string& fields) {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"hi"}])", fields.empty() ? "" : ",",
                      fields, "}");
}
std::string CompletionBody(const std::string& fields) {
  return absl::StrCat(R"({"prompt":"hi")", fields.empty() ? "" : ",", fields, "}");
}

OpenAiRequest ParseOk(OpenAiEndpoint endpoint, const std::string& body) {
  OpenAiRequest request;
  const auto error = ParseOpenAiRequest(endpoint, body, &request);
  EXPECT_FALSE(error.has_value()) << body << ": " << error->message;
  return request;
}

ApiError ParseError(OpenAiEndpoint endpoint, const std::string& body) {
  OpenAiRequest request;
  const auto error = ParseOpenAiRequest(endpoint, body, &request);
  EXPECT_TRUE(error.has_value()) << body;
  return error.value_or(ApiError{.status = 0});
}

struct BadField {
  const char* fields;
  const char* param;
  const char* message;
};

TEST(OpenAiRequestTest, ReadsEverySamplingField) {
  const OpenAiRequest request = ParseOk(
      kChat, ChatBody(R"("model":"m","temperature":0.5,"top_p":0.25,"min_p":0.125,"top_k":7,)"
                      R"("seed":-3,"stop":["a","b"],"max_tokens":9,"ignore_eos":true,)"
                      R"("priority":-5,)"
                      R"("stream":true,"stream_options":{"include_usage":true})"));
  EXPECT_EQ(request.model, "m");
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  ASSERT_EQ(request.generations.size(), 1u);
  const GenerationRequest& generation = request.generations[0];
  EXPECT_EQ(generation.temperature, 0.5f);
  EXPECT_EQ(generation.top_p, 0.25f);
  EXPECT_EQ(generation.min_p, 0.125f);
  EXPECT_EQ(generation.top_k, 7);
  EXPECT_EQ(generation.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(generation.max_tokens, 9);
  EXPECT_TRUE(generation.ignore_eos);
  EXPECT_EQ(generation.priority, -5);
  EXPECT_THAT(generation.stop, ElementsAre("a", "b"));
}

TEST(OpenAiRequestTest, AbsentAndNullFieldsAreLeftToTheService) {
  for (const char* fields :
       {"", R"("temperature":null,"top_p":null,"min_p":null,"top_k":null,"seed":null,)"
            R"("stop":null,"max_tokens":null,"stream":null,"stream_options":null,"model":null)"}) {
    const OpenAiRequest request = ParseOk(kChat, ChatBody(fields));
    const GenerationRequest& generation = request.generations.at(0);
    EXPECT_FALSE(generation.temperature || generation.top_p || generation.min_p ||
                 generation.top_k || generation.seed || generation.max_tokens);
    EXPECT_TRUE(generation.stop.empty());
    EXPECT_FALSE(request.stream);
    EXPECT_EQ(request.model, "");
  }
}

TEST(OpenAiRequestTest, NamesTheFieldOfAWrongType) {
  const BadField kCases[] = {
      {R"("temperature":"hot")", "temperature", "`temperature` must be a number, not a string"},
      {R"("top_p":true)", "top_p", "`top_p` must be a number, not a boolean"},
      {R"("min_p":[])", "min_p", "`min_p` must be a number, not an array"},
      {R"("top_k":1.5)", "top_k", "`top_k` must be an integer, got 1.5"},
      {R"("seed":"x")", "seed", "`seed` must be an integer, not a string"},
      {R"("max_tokens":"5")", "max_tokens", "`max_tokens` must be an integer, not a string"},
      {R"("max_tokens":-4)", "max_tokens", "`max_tokens` must be at least 1, got -4"},
      {R"("max_tokens":0)", "max_tokens", "`max_tokens` must be at least 1, got 0"},
      {R"("max_tokens":18446744073709551615)", "max_tokens", "`max_tokens` is too large"},
      {R"("temperature":1e300)", "temperature", "`temperature` is too large"},
      {R"("stop":5)", "stop", "`stop` must be a string or an array of strings, not a number"},
      {R"("stop":["a",5])", "stop[1]", "`stop[1]` must be a string, not a number"},
      {R"("stream":"yes")", "stream", "`stream` must be true or false, not a string"},
      {R"("model":7)", "model", "`model` must be a string, not a number"},
      {R"("ignore_eos":1)", "ignore_eos", "`ignore_eos` must be true or false, not a number"},
      {R"("stream":true,"stream_options":true)", "stream_options",
       "`stream_options` must be an object, not a boolean"},
      {R"("stream_options":{})", "stream_options",
       "`stream_options` is only allowed with `stream`: true"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage",
       "`include_usage` must be true or false, not a number"},
  };
  for (const BadField& bad : kCases) {
    for (const ApiError& error : {ParseError(kChat, ChatBody(bad.fields)),
                                  ParseError(kCompletion, CompletionBody(bad.fields))}) {
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.type, "invalid_request_error");
      EXPECT_EQ(error.param, bad.param);
      EXPECT_EQ(error.message, bad.message);
    }
  }
}

TEST(OpenAiRequestTest, MaxCompletionTokensWinsInAChat) {
  const auto both = ParseOk(kChat, ChatBody(R"("max_tokens":5,"max_completion_tokens":6)"));
  EXPECT_EQ(both.generations.at(0).max_tokens, 6);
  const ApiError error = ParseError(kChat, ChatBody(R"("max_completion_tokens":-1)"));
  EXPECT_EQ(error.param, "max_completion_tokens");
  EXPECT_EQ(error.message, "`max_completion_tokens` must be at least 1, got -1");
}

TEST(OpenAiRequestTest, CompletionsHaveOpenAisDefaultLength) {
  EXPECT_EQ(ParseOk(kCompletion, CompletionBody("")).generations.at(0).max_tokens, 16);
  EXPECT_FALSE(ParseOk(kChat, ChatBody("")).generations.at(0).max_tokens.has_value());
}

TEST(OpenAiRequestTest, RefusesUnsupportedFieldsByName) {
  for (const char* field : {R"("audio":{"voice":"x"})", R"("typical_p":0.5)", R"("functions":[{}])",
                            R"("modalities":["text","audio"])", R"("mirostat":2)",
                            R"("chat_template":"x")", R"("continue_final_message":true)"}) {
    const ApiError error = ParseError(kChat, ChatBody(field));
    const std::string name(field + 1, std::string(field + 1).find('"'));
    EXPECT_EQ(error.status, 400) << field;
    EXPECT_EQ(error.code, "unsupported_parameter") << field;
    EXPECT_EQ(error.param, name);
    EXPECT_THAT(error.message, HasSubstr(absl::StrCat("`", name, "` is not supported")));
  }
  for (const char* field : {R"("best_of":3)", R"("n":2,"best_of":1)", R"("suffix":"end")"}) {
    EXPECT_EQ(ParseError(kCompletion, CompletionBody(field)).code, "unsupported_parameter")
        << field;
  }
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("typical_p":0.5)")).message,
            "`typical_p` is not supported; leave it out or set it to 1");
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("prediction":{})")).message,
            "`prediction` is not supported; leave it out");
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("stream":true,)"
                                       R"("stream_options":{"continuous_usage_stats":true})"))
                .param,
            "stream_options.continuous_usage_stats");
}

TEST(OpenAiRequestTest, AcceptsUnsupportedFieldsThatAskForNothing) {
  ParseOk(kChat, ChatBody(R"("n":1,"logprobs":false,"top_logprobs":0,"logit_bias":{},)"
                          R"("presence_penalty":0,"frequency_penalty":0.0,"tools":[],)"
                          R"("response_format":{"type":"text"},"tool_choice":"none",)"
                          R"("functions":[],"modalities":["text"],"audio":null)"));
  ParseOk(kChat, ChatBody(R"("user":"u","metadata":{"a":"b"},"store":true,)"
                          R"("service_tier":"auto","safety_identifier":"s",)"
                          R"("prompt_cache_key":"k","parallel_tool_calls":true)"));
  ParseOk(kCompletion,
          CompletionBody(R"("best_of":1,"echo":false,"suffix":"","logprobs":null,"n":1)"));
}

TEST(OpenAiRequestTest, ListsUnknownFields) {
  const OpenAiRequest request = ParseOk(kChat, ChatBody(R"("zeta":1,"alpha":{"n":2},"user":"u")"));
  EXPECT_THAT(request.unknown_fields, ElementsAre("alpha", "zeta"));
}

TEST(OpenAiRequestTest, ReadsPenaltiesAndLogprobs) {
  const GenerationRequest chat =
      ParseOk(kChat, ChatBody(R"("presence_penalty":0.5,"frequency_penalty":-1,"min_tokens":3,)"
                              R"("repetition_penalty":1.5,"logit_bias":{"5":-100,"77":2.5},)"
                              R"("stop_token_ids":[4,5],"logprobs":true,"top_logprobs":3)"))
          .generations.at(0);
  EXPECT_EQ(chat.presence_penalty, 0.5f);
  EXPECT_EQ(chat.frequency_penalty, -1.0f);
  EXPECT_EQ(chat.repetition_penalty, 1.5f);
  EXPECT_EQ(chat.min_tokens, 3);
  EXPECT_THAT(chat.stop_token_ids, ElementsAre(4, 5));
  EXPECT_THAT(chat.logit_bias,
              ElementsAre(std::pair<int32_t, float>(5, -100), std::pair<int32_t, float>(77, 2.5f)));
  EXPECT_EQ(chat.logprobs, 3);
  EXPECT_EQ(ParseOk(kChat, ChatBody(R"("logprobs":true)")).generations.at(0).logprobs, 0);
  const GenerationRequest completion =
      ParseOk(kCompletion, CompletionBody(R"("echo":true,"max_tokens":0,"logprobs":1)"))
          .generations.at(0);
  EXPECT_TRUE(completion.echo);
  EXPECT_EQ(completion.max_tokens, 0);
  EXPECT_EQ(completion.logprobs, 1);
}

TEST(OpenAiRequestTest, NamesTheBadPenalty) {
  const BadField kCases[] = {
      {R"("logit_bias":[1])", "logit_bias",
       "`logit_bias` must be an object from token ids to numbers, not an array"},
      {R"("logit_bias":{"a":1})", "logit_bias", "`logit_bias` must have token ids as its keys"},
      {R"("logit_bias":{"1":"x"})", "logit_bias.1",
       "`logit_bias.1` must be a number, not a string"},
      {R"("n":0)", "n", "`n` must be at least 1 and at most 16, got 0"},
      {R"("n":17)", "n", "`n` must be at least 1 and at most 16, got 17"},
      {R"("stop_token_ids":[-1])", "stop_token_ids", "`stop_token_ids[0]` must be a token id"},
  };
  for (const BadField& bad : kCases) {
    for (const ApiError& error : {ParseError(kChat, ChatBody(bad.fields)),
                                  ParseError(kCompletion, CompletionBody(bad.fields))}) {
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.param, bad.param);
      EXPECT_EQ(error.message, bad.message);
    }
  }
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("top_logprobs":3)")).message,
            "`top_logprobs` is only allowed with `logprobs`: true");
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("logprobs":true,"top_logprobs":21)")).message,
            "`top_logprobs` must be at least 0 and at most 20, got 21");
  EXPECT_EQ(ParseError(kChat, ChatBody(R"("logprobs":1)")).message,
            "`logprobs` must be true or false, not a number");
}

TEST(OpenAiRequestTest, ChoicesOfEachPromptFollowEachOther) {
  const OpenAiRequest request =
      ParseOk(kCompletion, R"({"prompt":["a","b"],"n":2,"best_of":2,"seed":5})");
  EXPECT_EQ(request.choices_per_prompt, 2);
  ASSERT_EQ(request.generations.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(std::get<std::string>(request.generations[i].input), i < 2 ? "a" : "b");
    EXPECT_EQ(request.generations[i].choice, i % 2);
    EXPECT_EQ(request.generations[i].seed, 5u);
  }
  std::string prompts = "\"a\"";
  for (int i = 1; i < 20; ++i) prompts += ",\"a\"";
  EXPECT_EQ(ParseError(kCompletion, absl::StrCat("{\"n\":8,\"prompt\":[", prompts, "]}")).message,
            "`n` times the number of prompts may be at most 128, got 160");
}

TEST(OpenAiRequestTest, ReadsMessages) {
  const OpenAiRequest request = ParseOk(
      kChat, R"({"messages":[{"role":"developer","content":"be brief"},)"
             R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},)"
             R"({"role":"assistant","content":"c","refusal":null,"tool_calls":[]}]})");
  const auto& messages = std::get<std::vector<ChatMessage>>(request.generations.at(0).input);
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[0].content, "be brief");
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_EQ(messages[2].role, "assistant");
}

TEST(OpenAiRequestTest, ReadsCallsOfToolsAndTheirResults) {
  const OpenAiRequest request = ParseOk(
      kChat, R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,)"
             R"("reasoning_content":"hm","tool_calls":[{"id":"call_1","type":"function",)"
             R"("function":{"name":"f","arguments":"{\"a\":1}"}}]},)"
             R"({"role":"tool","tool_call_id":"call_1","content":"42"}]})");
  const auto& messages = std::get<std::vector<ChatMessage>>(request.generations.at(0).input);
  ASSERT_EQ(messages.size(), 3u);
  ASSERT_EQ(messages[1].tool_calls.size(), 1u);
  EXPECT_EQ(messages[1].tool_calls[0].name, "f");
  EXPECT_EQ(messages[1].tool_calls[0].arguments, R"({"a":1})");
  EXPECT_EQ(messages[1].reasoning, "hm");
  EXPECT_EQ(messages[2].role, "tool");
  EXPECT_EQ(messages[2].tool_call_id, "call_1");
}

TEST(OpenAiRequestTest, NamesTheBadMessage) {
  const struct {
    const char* messages;
    const char* param;
    const char* message;
  } kCases[] = {
      {R"("hi")", "messages", "`messages` must be an array, not a string"},
      {"[]", "messages", "`messages` must not be empty"},
      {"null", "messages", "`messages` is required"},
      {"[5]", "messages[0]", "`messages[0]` must be an object, not a number"},
      {R"([{"content":"x"}])", "messages[0].role", "`messages[0].role` is required"},
      {R"([{"role":3,"content":"x"}])", "messages[0].role",
       "`messages[0].role` must be a string, not a number"},
      {R"([{"role":"king","content":"x"}])", "messages[0].role",
       "`messages[0].role`: unknown role \"king\"; "
       "use system, developer, user, assistant or tool"},
      {R"([{"role":"user","content":"x"},{"role":"function","content":"x"}])", "messages[1].role",
       "`messages[1].role`: the role \"function\" is not supported; "
       "use system, developer, user, assistant or tool"},
      {R"([{"role":"tool","content":"x"}])", "messages[0].tool_call_id",
       "`messages[0].tool_call_id` is required"},
      {R"([{"role":"user"}])", "messages[0].content", "`messages[0].content` is required"},
      {R"([{"role":"assistant","content":null}])", "messages[0].content",
       "`messages[0].content` must be a string or an array of parts, not null"},
      {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]",
       "`messages[0].content[0]` must be an object, not a string"},
      {R"([{"role":"user","content":[{"type":5}]}])", "messages[0].content[0].type",
       "`messages[0].content[0].type` must be a string, not a number"},
      {R"([{"role":"user","content":[{"text":"x"}]}])", "messages[0].content[0].type",
       "`messages[0].content[0].type` is required"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text",
       "`messages[0].content[0].text` is required"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])",
       "messages[0].content[0].type",
       "`messages[0].content[0].type`: content of type \"image_url\" is not supported; use text"},
      {R"([{"role":"assistant","content":"","tool_calls":[{"id":"1"}]}])",
       "messages[0].tool_calls[0].function", "`messages[0].tool_calls[0].function` is required"},
      {R"([{"role":"user","content":"","tool_calls":[{"id":"1"}]}])", "messages[0].tool_calls",
       "`messages[0].tool_calls` is only allowed for an assistant"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]}])",
       "messages[0].tool_calls[0].function.arguments",
       "`messages[0].tool_calls[0].function.arguments` must be a string of JSON, not an object"},
      {R"([{"role":"assistant","content":"","audio":{"id":"1"}}])", "messages[0].audio",
       "`messages[0].audio` is not supported; leave it out"},
  };
  for (const auto& bad : kCases) {
    const ApiError error = ParseError(kChat, absl::StrCat(R"({"messages":)", bad.messages, "}"));
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, bad.param);
    EXPECT_EQ(error.message, bad.message);
  }
}

TEST(OpenAiRequestTest, ReadsPromptsInEveryForm) {
  const auto one = ParseOk(kCompletion, R"({"prompt":"a"})");
  EXPECT_EQ(std::get<std::string>(one.generations.at(0).input), "a");

  const auto ids = ParseOk(kCompletion, R"({"prompt":[3,1,2]})");
  EXPECT_THAT(std::get<std::vector<int32_t>>(ids.generations.at(0).input), ElementsAre(3, 1, 2));

  const auto many = ParseOk(kCompletion, R"({"prompt":["a","b"],"seed":5})");
  ASSERT_EQ(many.generations.size(), 2u);
  EXPECT_EQ(std::get<std::string>(many.generations[1].input), "b");
  EXPECT_EQ(many.generations[1].seed, 5u);

  const auto lists = ParseOk(kCompletion, R"({"prompt":[[1],[2,3]]})");
  EXPECT_THAT(std::get<std::vector<int32_t>>(lists.generations.at(1).input), ElementsAre(2, 3));
}

TEST(OpenAiRequestTest, NamesTheBadPrompt) {
  EXPECT_EQ(ParseError(kCompletion, "{}").message, "`prompt` is required");
  EXPECT_EQ(ParseError(kCompletion, R"({"prompt":{}})").message,
            "`prompt` must be a string, an array of strings or an array of token ids, "
            "not an object");
  EXPECT_EQ(ParseError(kCompletion, R"({"prompt":[1,-2]})").message,
            "`prompt[1]` must be a token id");
  EXPECT_EQ(ParseError(kCompletion, R"({"prompt":[1,4294967296]})").message,
            "`prompt[1]` must be a token id");
  EXPECT_EQ(ParseError(kCompletion, R"({"prompt":["a",true]})").message,
            "`prompt[1]` must be a string or an array of token ids, not a boolean");
  std::string prompts = "\"a\"";
  for (size_t i = 0; i < kMaxPrompts; ++i) prompts += ",\"a\"";
  EXPECT_EQ(ParseError(kCompletion, absl::StrCat("{\"prompt\":[", prompts, "]}")).message,
            "`prompt` may have at most 64 prompts, got 65");
}

TEST(OpenAiRequestTest, RefusesWhatIsNotJson) {
  EXPECT_EQ(ParseError(kChat, "").message, "the request body is empty; JSON is expected");
  EXPECT_EQ(ParseError(kChat, "[]").message, "the request body must be a JSON object");
  const ApiError cut = ParseError(kChat, R"({"messages": [)");
  EXPECT_EQ(cut.status, 400);
  EXPECT_THAT(cut.message, HasSubstr("the request body is not valid JSON: parse error at line 1"));
  // Invalid UTF-8, a lone surrogate, NaN and a number beyond double.
  for (const char* body : {"{\"model\":\"\xff\"}", R"({"model":"\ud800"})", R"({"top_p":NaN})",
                           R"({"top_p":1e999})", "{} {}"}) {
    EXPECT_THAT(ParseError(kChat, body).message, HasSubstr("not valid JSON")) << body;
  }
}

TEST(OpenAiRequestTest, BoundsDepthBeforeParsing) {
  const std::string deep(100000, '[');
  EXPECT_EQ(ParseError(kChat, deep).message, "the request body is nested deeper than 32");
  // Brackets inside of strings are text.
  ParseOk(kCompletion, absl::StrCat(R"({"prompt":"\")", std::string(1000, '{'), R"("})"));
}

TEST(UnknownFieldLogTest, LogsEachNameOnceAndHoldsABoundedNumber) {
  UnknownFieldLog log;
  EXPECT_TRUE(log.ShouldLog("a"));
  EXPECT_FALSE(log.ShouldLog("a"));
  for (int i = 0; i < UnknownFieldLog::kMaxNames - 1; ++i) {
    EXPECT_TRUE(log.ShouldLog(absl::StrCat("field", i)));
  }
  EXPECT_FALSE(log.ShouldLog("one too many"));
}

}  // namespace
}  // namespace dovetail::coordinator
