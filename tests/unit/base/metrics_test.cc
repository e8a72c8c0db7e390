#include "base/metrics.h"

#include <limits>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace dovetail {
namespace {

constexpr double kBounds[] = {0.25, 1, 10};

TEST(HistogramTest, AValueOnABoundBelongsBelowIt) {
  Histogram histogram(kBounds);
  histogram.Observe(0.25);
  histogram.Observe(0.2501);
  histogram.Observe(11, 3);
  histogram.Observe(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(histogram.bucket(0), 1u);
  EXPECT_EQ(histogram.bucket(1), 1u);
  EXPECT_EQ(histogram.bucket(2), 0u);
  EXPECT_EQ(histogram.bucket(3), 3u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 0.25 + 0.2501 + 33);
}

TEST(HistogramTest, NothingIsLostBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  Histogram histogram(kBounds);
  Counter counter;
  Gauge gauge;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        histogram.Observe(0.5);
        counter.Add(2);
        gauge.Add(i % 2 == 0 ? 1 : -1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.bucket(1), uint64_t{kThreads * kEach});
  EXPECT_DOUBLE_EQ(histogram.sum(), 0.5 * kThreads * kEach);
  EXPECT_EQ(counter.value(), uint64_t{2 * kThreads * kEach});
  EXPECT_EQ(gauge.value(), 0);
}

TEST(MetricsTextTest, CountersAndLabels) {
  MetricsText text;
  text.Family("a_total", "counter", "Things.\nMore \\ of them");
  text.Sample({{"kind", "x"}, {"of", "q\"u\\o\nte"}}, uint64_t{18446744073709551615u});
  text.Sample({}, int64_t{-3});
  text.Single("b", "gauge", "B", 0.1);
  EXPECT_EQ(text.text(),
            "# HELP a_total Things.\\nMore \\\\ of them\n"
            "# TYPE a_total counter\n"
            "a_total{kind=\"x\",of=\"q\\\"u\\\\o\\nte\"} 18446744073709551615\n"
            "a_total -3\n"
            "# HELP b B\n# TYPE b gauge\nb 0.1\n");
}

TEST(MetricsTextTest, NumbersKeepTheirValue) {
  MetricsText text;
  text.Single("a", "gauge", "A", 1234567890123.0);
  text.Single("b", "gauge", "B", 1.0 / 3);
  text.Single("c", "gauge", "C", std::numeric_limits<double>::infinity());
  EXPECT_NE(text.text().find("\na 1234567890123\n"), std::string::npos) << text.text();
  EXPECT_NE(text.text().find("\nb 0.3333333333333333\n"), std::string::npos) << text.text();
  EXPECT_NE(text.text().find("\nc +Inf\n"), std::string::npos) << text.text();
}

TEST(MetricsTextTest, HistogramBucketsAreCumulative) {
  Histogram histogram(kBounds);
  histogram.Observe(0.1);
  histogram.Observe(5, 2);
  histogram.Observe(100);
  MetricsText text;
  text.Family("h_seconds", "histogram", "H");
  text.Sample({{"worker", "cpu:0"}}, histogram);
  EXPECT_EQ(text.text(),
            "# HELP h_seconds H\n# TYPE h_seconds histogram\n"
            "h_seconds_bucket{worker=\"cpu:0\",le=\"0.25\"} 1\n"
            "h_seconds_bucket{worker=\"cpu:0\",le=\"1\"} 1\n"
            "h_seconds_bucket{worker=\"cpu:0\",le=\"10\"} 3\n"
            "h_seconds_bucket{worker=\"cpu:0\",le=\"+Inf\"} 4\n"
            "h_seconds_sum{worker=\"cpu:0\"} 110.1\n"
            "h_seconds_count{worker=\"cpu:0\"} 4\n");
}

}  // namespace
}  // namespace dovetail
