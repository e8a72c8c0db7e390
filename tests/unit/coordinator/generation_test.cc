#include "coordinator/generation.h"

#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/byte_tokenizer.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::ByteTokenizer;
using ::dovetail::testing::FakeWorkers;
using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr int kBos = testing::ByteTokenizer::kBos;
constexpr int kEnd = testing::ByteTokenizer::kEnd;
constexpr int kUserMark = testing::ByteTokenizer::kUserMark;
constexpr int kAnswerMark = testing::ByteTokenizer::kAnswerMark;
constexpr int kVocab = testing::ByteTokenizer::kVocab;
constexpr int kContext = 64;

class RecordingEvents : public EventSink {
 public:
  void OnEvent(const GenerationEvent& event) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_TRUE(events_.empty() || !events_.back().finished) << "an event after the last";
    events_.push_back(event);
    changed_.notify_all();
  }
  // All events up to the last.
  std::vector<GenerationEvent> Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool done =
        changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + absl::Seconds(20)),
                            [this] { return !events_.empty() && events_.back().finished; });
    EXPECT_TRUE(done);
    return events_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerationEvent> events_;
};

std::string TextOf(const std::vector<GenerationEvent>& events) {
  std::string text;
  for (const GenerationEvent& event : events) text += event.text;
  return text;
}

class GenerationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.vocab_size = kVocab;
    absl::StatusOr<std::unique_ptr<model::ChatTemplate>> parsed = model::ChatTemplate::Parse(
        "{{ bos_token }}{% for message in messages %}<user>{{ message.role }}:"
        "{{ message.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<answer>{% endif %}");
    ASSERT_OK(parsed);
    template_ = *std::move(parsed);
    Start();
  }
  void Start(int max_new_tokens = 0, int context = kContext) {
    service_.reset();
    engine_.reset();
    EngineOptions options;
    options.shape.max_rows = 64;
    options.shape.max_sequences = 4;
    options.shape.max_logit_rows = 4;
    options.shape.context_length = context;
    options.shape.num_kv_blocks = context / 8;
    options.shape.vocab_size = kVocab;
    options.vocab_size = kVocab;
    options.hidden_size = 4;
    workers_ = std::make_shared<FakeWorkers>(options.shape, kVocab, 4);
    // Says what `answer_` holds, whatever the prompt (which is remembered), and then ends.
    workers_->set_next_token([this](absl::Span<const int32_t> tokens) {
      if (prompt_.empty() || tokens.size() <= prompt_.size()) {
        prompt_.assign(tokens.begin(), tokens.end());
      }
      const size_t at = tokens.size() - prompt_.size();
      return at < answer_.size() ? static_cast<unsigned char>(answer_[at]) : int32_t{kEnd};
    });
    engine_ = std::make_unique<Engine>(options);
    engine_->SetPipeline(workers_->MakePipeline());
    service_ = std::make_unique<GenerationService>("tiny", &config_, &tokenizer_, template_.get(),
                                                   engine_.get(), context, max_new_tokens);
  }
  std::vector<GenerationEvent> Run(const GenerationRequest& request) {
    auto events = std::make_shared<RecordingEvents>();
    EXPECT_OK(service_->Start(request, events));
    return events->Wait();
  }
  absl::Status Refusal(const GenerationRequest& request) {
    return service_->Start(request, std::make_shared<RecordingEvents>()).status();
  }
  static GenerationRequest Text(const std::string& prompt) {
    GenerationRequest request;
    request.input = prompt;
    return request;
  }

  model::ModelConfig config_;
  ByteTokenizer tokenizer_;
  std::unique_ptr<model::ChatTemplate> template_;
  std::string answer_ = "hello";
  std::vector<int32_t> prompt_;
  std::shared_ptr<FakeWorkers> workers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<GenerationService> service_;
};

TEST_F(GenerationTest, StreamsTextAndUsage) {
  GenerationRequest request = Text("ab");
  request.seed = 7;
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "hello");
  ASSERT_EQ(events.size(), 6u) << "five tokens and the end";
  EXPECT_EQ(events[0].text, "h");
  EXPECT_THAT(events[0].tokens, ElementsAre('h'));
  EXPECT_EQ(events[0].usage.prompt_tokens, 3);
  EXPECT_EQ(events[0].seed, 7u);
  EXPECT_EQ(events.back().reason, FinishReason::kStop);
  EXPECT_OK(events.back().status);
  EXPECT_EQ(events.back().usage.completion_tokens, 5);
  EXPECT_THAT(prompt_, ElementsAre(kBos, 'a', 'b')) << "BOS once, special text not parsed";
}

TEST_F(GenerationTest, SpecialTokensInACompletionPromptAreText) {
  Run(Text("<end>"));
  EXPECT_EQ(prompt_.size(), 6u);
}

TEST_F(GenerationTest, RendersTheChatTemplateWithoutASecondBos) {
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"system", "S"}, {"user", "hi"}};
  EXPECT_EQ(TextOf(Run(request)), "hello");
  EXPECT_EQ(tokenizer_.Decode(prompt_, true), "<s><user>system:S<end><user>user:hi<end><answer>");
  EXPECT_EQ(prompt_[0], kBos);
  EXPECT_EQ(prompt_[1], kUserMark) << "special tokens of the template are parsed";
  EXPECT_EQ(prompt_.back(), kAnswerMark);
}

TEST_F(GenerationTest, AddsBosWhereTheTemplateDoesNot) {
  ASSERT_OK_AND_ASSIGN(template_, model::ChatTemplate::Parse("{{ messages[0].content }}"));
  Start();
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"user", "hi"}};
  Run(request);
  EXPECT_THAT(prompt_, ElementsAre(kBos, 'h', 'i'));
}

TEST_F(GenerationTest, TokenIdsAreTakenAsTheyAre) {
  GenerationRequest request;
  request.input = std::vector<int32_t>{kUserMark, 65};
  EXPECT_EQ(TextOf(Run(request)), "hello");
  EXPECT_THAT(prompt_, ElementsAre(kUserMark, 65));
}

TEST_F(GenerationTest, StopStringsAcrossTokensEndAtOnce) {
  answer_ = "one END two";
  GenerationRequest request = Text("x");
  request.stop = {"END", "never"};
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "one ");
  EXPECT_EQ(events.back().reason, FinishReason::kStop);
  EXPECT_EQ(events.back().stop, "END");
  EXPECT_LE(events.back().usage.admitted, absl::Now());
  EXPECT_EQ(events.back().usage.completion_tokens, 7);
  EXPECT_EQ(events.back().usage.prompt_tokens, 2);
  EXPECT_EQ(engine_->WaitIdle(absl::Seconds(10)), 0);
  // Cancelled within a step or, if the stop came before Start() knew the request's number, soon
  // after.
  EXPECT_GE(engine_->stats().generated_tokens, 7u);
}

TEST_F(GenerationTest, TextThatWasHeldBackComesAtTheEnd) {
  answer_ = "one EN";
  GenerationRequest request = Text("x");
  request.stop = {"END"};
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "one EN");
  EXPECT_EQ(events.back().text, "EN");
}

TEST_F(GenerationTest, EmitsWholeCharactersOnly) {
  answer_ = "é\xe2\x82\xac\xe2";  // é, €, and the beginning of something
  const std::vector<GenerationEvent> events = Run(Text("x"));
  EXPECT_EQ(TextOf(events), "é€\xef\xbf\xbd");
  EXPECT_EQ(events[0].text, "");
  EXPECT_THAT(events[0].tokens, ElementsAre(0xc3));
  EXPECT_EQ(events[1].text, "é");
}

TEST_F(GenerationTest, MaxTokensAndTheContextEndWithLength) {
  answer_ = std::string(100, 'x');
  GenerationRequest request = Text("ab");
  request.max_tokens = 3;
  std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "xxx");
  EXPECT_EQ(events.back().reason, FinishReason::kLength);
  request.max_tokens = 1000;
  events = Run(request);
  EXPECT_EQ(TextOf(events).size(), static_cast<size_t>(kContext - 3));
  Start(/*max_new_tokens=*/5);
  EXPECT_EQ(TextOf(Run(request)).size(), 5u);
}

TEST_F(GenerationTest, IgnoreEosGoesOn) {
  answer_ = "hi";
  GenerationRequest request = Text("ab");
  request.max_tokens = 6;
  request.ignore_eos = true;
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(events.back().usage.completion_tokens, 6);
  EXPECT_EQ(events.back().reason, FinishReason::kLength);
  EXPECT_EQ(TextOf(events), "hi") << "special tokens have no text";
}

TEST_F(GenerationTest, SeedsDifferUnlessGiven) {
  const uint64_t first = Run(Text("x"))[0].seed;
  EXPECT_NE(Run(Text("x"))[0].seed, first);
}

TEST_F(GenerationTest, LogprobsComeWithTheirTokens) {
  GenerationRequest request = Text("x");
  request.logprobs = 2;
  answer_ = "\xc3\xa9!";
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "é!");
  ASSERT_EQ(events[0].details.size(), 1u) << "even where the text is not complete";
  EXPECT_EQ(events[0].text, "");
  EXPECT_EQ(events[0].details[0].bytes, "\xc3");
  EXPECT_LE(events[0].details[0].logprob.value(), 0.0f);
  EXPECT_EQ(events[0].details[0].top.size(), 2u);
  EXPECT_TRUE(events.back().details.empty()) << "the end token is not shown";
}

TEST_F(GenerationTest, EchoesThePrompt) {
  for (const bool logprobs : {false, true}) {
    for (const int max_tokens : {0, 2}) {
      GenerationRequest request = Text("hi");
      request.stop = {"h"};  // of the answer alone
      answer_ = "ab";
      request.echo = true;
      request.max_tokens = max_tokens;
      if (logprobs) request.logprobs = 0;
      const std::vector<GenerationEvent> events = Run(request);
      EXPECT_EQ(TextOf(events), max_tokens == 0 ? "hi" : "hiab");
      EXPECT_THAT(events[0].tokens, ElementsAre(kBos, 'h', 'i'));
      EXPECT_EQ(events.back().reason, FinishReason::kLength);
      EXPECT_EQ(events.back().usage.completion_tokens, max_tokens);
      ASSERT_EQ(events[0].details.size(), logprobs ? 3u : 0u);
      if (!logprobs) continue;
      EXPECT_FALSE(events[0].details[0].logprob.has_value());
      EXPECT_FALSE(events[0].details[0].in_text);
      EXPECT_EQ(events[0].details[2].bytes, "i");
      EXPECT_TRUE(events[0].details[2].logprob.has_value());
    }
  }
  GenerationRequest ids;
  ids.input = std::vector<int32_t>{kBos, 'h', 'i'};
  ids.echo = true;
  ids.max_tokens = 0;
  EXPECT_EQ(TextOf(Run(ids)), "hi");
}

TEST_F(GenerationTest, StopTokensEndWithoutTheirText) {
  answer_ = "one.two";
  GenerationRequest request = Text("x");
  request.stop_token_ids = {'.'};
  const std::vector<GenerationEvent> events = Run(request);
  EXPECT_EQ(TextOf(events), "one");
  EXPECT_EQ(events.back().reason, FinishReason::kStop);
}

TEST_F(GenerationTest, AFormatDecidesWhichTokensMayCome) {
  answer_ = "no!";  // what the model would rather say
  GenerationRequest request = Text("x");
  request.format = GrammarSpec{GrammarKind::kRegex, "(yes|maybe), [0-9]{3}", "guided_regex"};
  const std::string text = TextOf(Run(request));
  EXPECT_EQ(text.substr(text.find(',')).size(), 5u) << text;
  EXPECT_TRUE(text.rfind("yes, ", 0) == 0 || text.rfind("maybe, ", 0) == 0) << text;
  EXPECT_EQ(engine_->WaitIdle(absl::Seconds(10)), 0);
}

TEST_F(GenerationTest, ABadFormatNamesItsField) {
  GenerationRequest request = Text("x");
  request.format = GrammarSpec{GrammarKind::kRegex, "(", "guided_regex"};
  EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("`guided_regex` cannot be used: ")));
}

TEST_F(GenerationTest, CallsOfToolsAreEventsOfTheirOwn) {
  answer_ = "Ok.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 3}}\n</tool_call>";
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"user", "h"}};
  request.chat.tools = nlohmann::ordered_json::parse(
      R"([{"type":"function","function":{"name":"f","parameters":{"type":"object",)"
      R"("properties":{"n":{"type":"integer"}}}}}])");
  Start(/*max_new_tokens=*/0, /*context=*/2048);
  AnswerDelta answer;
  const std::vector<GenerationEvent> events = Run(request);
  for (const GenerationEvent& event : events) answer.Add(event);
  EXPECT_EQ(answer.text, "Ok.");
  ASSERT_EQ(answer.tool_calls.size(), 1u);
  EXPECT_EQ(answer.tool_calls[0].name, "f");
  EXPECT_EQ(answer.tool_calls[0].arguments, "{\"n\": 3}");
  EXPECT_EQ(events.back().reason, FinishReason::kToolCalls);
  EXPECT_THAT(tokenizer_.Decode(prompt_, true), HasSubstr("\"name\":\"f\""))
      << "a template that knows no tools gets them in a system message";
  // The model would talk, but it has to call.
  answer_ = "no";
  request.chat.tool_choice = ChatOptions::ToolChoice::kRequired;
  request.max_tokens = 200;
  AnswerDelta forced;
  for (const GenerationEvent& event : Run(request)) forced.Add(event);
  ASSERT_GE(forced.tool_calls.size(), 1u);
  EXPECT_EQ(forced.tool_calls[0].name, "f");
}

TEST_F(GenerationTest, ThoughtsAreCounted) {
  ASSERT_OK_AND_ASSIGN(template_,
                       model::ChatTemplate::Parse("{{ messages[0].content }}{# <think> #}"));
  Start();
  answer_ = "<think>hm</think>yes";
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"user", "h"}};
  AnswerDelta answer;
  const std::vector<GenerationEvent> events = Run(request);
  for (const GenerationEvent& event : events) answer.Add(event);
  EXPECT_EQ(answer.reasoning, "hm");
  EXPECT_EQ(answer.text, "yes");
  EXPECT_EQ(events.back().usage.reasoning_tokens, 10) << "hm and its closing mark";
}

TEST_F(GenerationTest, NamesTheFieldOfEveryBadParameter) {
  const auto expect = [&](const std::function<void(GenerationRequest*)>& change,
                          const std::string& message) {
    GenerationRequest request = Text("x");
    change(&request);
    EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument, message));
  };
  expect([](auto* r) { r->temperature = -1; },
         "`temperature` must be at least 0 and at most 2, got -1");
  expect([](auto* r) { r->temperature = 2.5f; },
         "`temperature` must be at least 0 and at most 2, got 2.5");
  expect([](auto* r) { r->temperature = std::nanf(""); },
         "`temperature` must be at least 0 and at most 2, got nan");
  expect([](auto* r) { r->top_p = 0; }, "`top_p` must be above 0 and at most 1, got 0");
  expect([](auto* r) { r->min_p = 1.5f; }, "`min_p` must be at least 0 and at most 1, got 1.5");
  expect([](auto* r) { r->presence_penalty = 2.5f; },
         "`presence_penalty` must be at least -2 and at most 2, got 2.5");
  expect([](auto* r) { r->frequency_penalty = -3; },
         "`frequency_penalty` must be at least -2 and at most 2, got -3");
  expect([](auto* r) { r->repetition_penalty = 0; },
         "`repetition_penalty` must be above 0 and at most 10, got 0");
  expect([](auto* r) { r->min_tokens = -1; }, "`min_tokens` must be at least 0, got -1");
  expect([](auto* r) { r->priority = 101; }, "`priority` must be at most 100, got 101");
  expect([](auto* r) { r->priority = -101; }, "`priority` must be at least -100, got -101");
  expect([](auto* r) { r->logprobs = 21; }, "`logprobs` must be at most 20, got 21");
  expect(
      [](auto* r) {
        r->logit_bias = {{260, 1}};
      },
      "`logit_bias` has token id 260; the vocabulary has ids 0 to 259");
  expect(
      [](auto* r) {
        r->logit_bias = {{1, 101}};
      },
      "`logit_bias` must be at least -100 and at most 100, got 101");
  expect(
      [](auto* r) {
        r->logit_bias.assign(301, {1, 1});
      },
      "`logit_bias` may have at most 300 tokens, got 301");
  expect([](auto* r) { r->stop_token_ids = {-1}; },
         "`stop_token_ids` has token id -1; the vocabulary has ids 0 to 259");
  expect([](auto* r) { r->top_k = -2; }, "`top_k` must be at least 0, got -2");
  expect([](auto* r) { r->max_tokens = -4; }, "`max_tokens` must be at least 1, got -4");
  expect([](auto* r) { r->max_tokens = 0; }, "`max_tokens` must be at least 1, got 0");
  expect([](auto* r) { r->stop = {"a", ""}; }, "`stop` must not contain an empty string");
  expect([](auto* r) { r->stop.assign(17, "a"); }, "`stop` may have at most 16 strings, got 17");
  expect(
      [](auto* r) {
        r->input = std::vector<int32_t>{1, 260};
      },
      "`prompt` has token id 260; the vocabulary has ids 0 to 259");
  expect([](auto* r) { r->input = std::vector<int32_t>{}; }, "`prompt` must not be empty");
  expect([](auto* r) { r->input = std::vector<ChatMessage>{}; }, "`messages` must not be empty");
  expect([](auto* r) { r->input = std::string("\xff"); }, "`prompt`: byte 0 is not UTF-8");
  expect([](auto* r) { r->input = std::string(100, 'x'); },
         "`prompt` is too long: this model's maximum context length is 64 tokens; your prompt has "
         "101 tokens");
}

TEST_F(GenerationTest, TooLongChatsNameTheMessages) {
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"user", std::string(80, 'x')}};
  EXPECT_THAT(Refusal(request),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`messages` is too long: this model's maximum context length is 64 tokens; "
                       "your prompt has 89 tokens"));
}

TEST_F(GenerationTest, ReportsWhatTheTemplateRefuses) {
  ASSERT_OK_AND_ASSIGN(template_,
                       model::ChatTemplate::Parse("{{ raise_exception('no system role') }}"));
  Start();
  GenerationRequest request;
  request.input = std::vector<ChatMessage>{{"system", "x"}};
  EXPECT_THAT(Refusal(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                         ::testing::AllOf(StartsWith("`messages`: chat template"),
                                                          HasSubstr("no system role"))));
}

TEST_F(GenerationTest, WithoutTemplateOrVocabulary) {
  GenerationService plain("tiny", &config_, &tokenizer_, nullptr, engine_.get(), kContext, 0);
  GenerationRequest chat;
  chat.input = std::vector<ChatMessage>{{"user", "x"}};
  auto sink = std::make_shared<RecordingEvents>();
  EXPECT_THAT(plain.Start(chat, sink),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("`messages` cannot be used")));
  const ByteTokenizer ids_only(/*has_vocab=*/false);
  GenerationService ids("tiny", &config_, &ids_only, nullptr, engine_.get(), kContext, 0);
  EXPECT_THAT(ids.Start(Text("x"), sink),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("`prompt` cannot be used")));
  GenerationRequest request;
  request.input = std::vector<int32_t>{65};
  ASSERT_OK(ids.Start(request, sink));
  const std::vector<GenerationEvent> events = sink->Wait();
  EXPECT_EQ(TextOf(events), "");
  EXPECT_EQ(events.back().usage.completion_tokens, 5);
}

TEST_F(GenerationTest, CancelAndStopAccepting) {
  workers_->Hold();
  auto sink = std::make_shared<RecordingEvents>();
  ASSERT_OK_AND_ASSIGN(const RequestId id, service_->Start(Text("x"), sink));
  service_->Cancel(id);
  const std::vector<GenerationEvent> events = sink->Wait();
  EXPECT_EQ(events.back().reason, FinishReason::kCancelled);
  EXPECT_THAT(events.back().status, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  service_->StopAccepting();
  EXPECT_THAT(Refusal(Text("x")),
              StatusIs(absl::StatusCode::kUnavailable, "the server is shutting down"));
}

}  // namespace
}  // namespace dovetail::coordinator
