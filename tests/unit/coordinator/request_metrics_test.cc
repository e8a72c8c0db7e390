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

GenerationEvent Tokens(int count) {
  GenerationEvent event;
  event.tokens.resize(static_cast<size_t>(count));
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
  metrics.Write(&text);
  return text.text();
}

TEST(RequestMetricsTest, CountsTokensAndTimes) {
  RequestMetrics metrics;
  auto inner = std::make_shared<CountingSink>();
  auto sink = metrics.Watch(inner, absl::Now() - absl::Seconds(3));
  sink->OnEvent(GenerationEvent());  // the first one, without a token
  sink->OnEvent(Tokens(1));
  sink->OnEvent(Tokens(2));
  sink->OnEvent(Finished(FinishReason::kLength));
  EXPECT_EQ(inner->events, 4);
  EXPECT_EQ(inner->tokens, 3u);
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("dovetail_requests_total{outcome=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_requests_total{outcome=\"stop\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_prompt_tokens_total 7\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_generation_tokens_total 3\n"));
  // Three seconds and a little: below five, not below two and a half.
  EXPECT_THAT(text, HasSubstr("dovetail_time_to_first_token_seconds_bucket{le=\"2.5\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_time_to_first_token_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_inter_token_latency_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_time_per_output_token_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_e2e_request_latency_seconds_count 1\n"));
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
  EXPECT_THAT(text, HasSubstr("dovetail_time_to_first_token_seconds_count 0\n"));
}

}  // namespace
}  // namespace dovetail::coordinator
