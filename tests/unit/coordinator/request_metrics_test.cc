#include "coordinator/request_metrics.h"

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::HasSubstr;

class CountingSink : public EventSink {
 public:
  void OnEvent(const GenerationEvent& event) override {
    ++events;
    tokens += event.tokens.size();
  }
  int events = 0;
  size_t tokens = 0;
};

// `so_far`: those before it.
GenerationEvent Tokens(int count, int so_far = 0) {
  GenerationEvent event;
  event.tokens.resize(static_cast<size_t>(count));
  event.usage.completion_tokens = so_far + count;
  return event;
}

GenerationEvent Finished(FinishReason reason, absl::Status status = absl::OkStatus()) {
  GenerationEvent event;
  event.finished = true;
  event.reason = reason;
  event.status = std::move(status);
  event.usage.prompt_tokens = 7;
  event.usage.cached_tokens = 4;
  return event;
}

std::string TextOf(const RequestMetrics& metrics) {
  MetricsText text;
  WriteRequestMetrics({{"m", &metrics}}, &text);
  return text.text();
}

TEST(RequestMetricsTest, CountsTokensAndTimes) {
  RequestMetrics metrics;
  auto inner = std::make_shared<CountingSink>();
  auto sink = metrics.Watch(inner, absl::Now() - absl::Seconds(3));
  sink->OnEvent(GenerationEvent());  // the first one, without a token
  sink->OnEvent(Tokens(1));
  sink->OnEvent(Tokens(2, 1));
  sink->OnEvent(Finished(FinishReason::kLength));
  EXPECT_EQ(inner->events, 4);
  EXPECT_EQ(inner->tokens, 3u);
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("dovetail_requests_total{model=\"m\",outcome=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_requests_total{model=\"m\",outcome=\"stop\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_prompt_tokens_total{model=\"m\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_generation_tokens_total{model=\"m\"} 3\n"));
  // Three seconds and a little: below five, not below two and a half.
  EXPECT_THAT(text,
              HasSubstr("dovetail_time_to_first_token_seconds_bucket{model=\"m\",le=\"2.5\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_time_to_first_token_seconds_count{model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_inter_token_latency_seconds_count{model=\"m\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_time_per_output_token_seconds_count{model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_e2e_request_latency_seconds_count{model=\"m\"} 1\n"));
}

TEST(RequestMetricsTest, PhasesAddUp) {
  RequestMetrics metrics;
  auto sink =
      metrics.Watch(std::make_shared<CountingSink>(), absl::Now() - absl::Milliseconds(3300));
  sink->OnEvent(Tokens(1));
  GenerationEvent last = Finished(FinishReason::kStop);
  last.usage.admitted = absl::Now() - absl::Milliseconds(1300);
  sink->OnEvent(last);
  const std::string text = TextOf(metrics);
  // Two seconds in the queue, a little more than one of prefill, nothing after the first token.
  EXPECT_THAT(text, HasSubstr("dovetail_request_queue_seconds_bucket{model=\"m\",le=\"1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_request_queue_seconds_bucket{model=\"m\",le=\"2.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_request_prefill_seconds_bucket{model=\"m\",le=\"1\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("dovetail_request_prefill_seconds_bucket{model=\"m\",le=\"2.5\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("dovetail_request_decode_seconds_bucket{model=\"m\",le=\"0.05\"} 1\n"));
}

TEST(RequestMetricsTest, WhoGivesUpInTheQueueHasWaitedToo) {
  RequestMetrics metrics;
  metrics.Watch(std::make_shared<CountingSink>(), absl::Now() - absl::Seconds(3))
      ->OnEvent(Finished(FinishReason::kError, absl::DeadlineExceededError("")));
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("dovetail_request_queue_seconds_bucket{model=\"m\",le=\"2.5\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_request_queue_seconds_count{model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_request_prefill_seconds_count{model=\"m\"} 0\n"));
}

TEST(RequestMetricsTest, AnEchoedPromptWasNotGenerated) {
  RequestMetrics metrics;
  auto sink = metrics.Watch(std::make_shared<CountingSink>(), absl::Now());
  GenerationEvent echo = Tokens(50);
  echo.usage.completion_tokens = 0;
  sink->OnEvent(echo);
  sink->OnEvent(Tokens(1));
  sink->OnEvent(Finished(FinishReason::kLength));
  EXPECT_THAT(TextOf(metrics), HasSubstr("dovetail_generation_tokens_total{model=\"m\"} 1\n"));
}

TEST(RequestMetricsTest, OutcomesAndRejections) {
  RequestMetrics metrics;
  const auto end = [&](FinishReason reason, absl::Status status) {
    metrics.Watch(std::make_shared<CountingSink>(), absl::Now())->OnEvent(Finished(reason, status));
  };
  end(FinishReason::kStop, absl::OkStatus());
  end(FinishReason::kCancelled, absl::CancelledError(""));
  end(FinishReason::kError, absl::DeadlineExceededError(""));
  end(FinishReason::kError, absl::InternalError(""));
  metrics.AddRejected(absl::InvalidArgumentError(""));
  metrics.AddRejected(absl::ResourceExhaustedError(""));
  metrics.AddRejected(absl::UnavailableError(""));
  const std::string text = TextOf(metrics);
  for (const char* outcome : {"stop", "cancelled", "deadline", "error"}) {
    EXPECT_THAT(text, HasSubstr(std::string("outcome=\"") + outcome + "\"} 1\n"));
  }
  for (const char* reason : {"invalid", "queue_full", "unavailable"}) {
    EXPECT_THAT(text, HasSubstr(std::string("reason=\"") + reason + "\"} 1\n"));
  }
  EXPECT_THAT(text, HasSubstr("dovetail_time_to_first_token_seconds_count{model=\"m\"} 0\n"));
}

}  // namespace
}  // namespace dovetail::coordinator
