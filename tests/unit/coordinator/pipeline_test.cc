#include "coordinator/pipeline.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::FakeWorkers;
using ::dovetail::testing::StatusIs;
using transport::Exchange;
using transport::ExchangeSpec;
using transport::StepFrame;
using transport::StepOutput;

constexpr int kVocab = 31;
constexpr int kHidden = 8;

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    shape_.max_rows = 16;
    shape_.max_sequences = 2;
    shape_.max_logit_rows = 2;
    shape_.context_length = 64;
    shape_.num_kv_blocks = 4;
    route_ = {{"cpu:0", {Op{OpKind::kEmbedding}}}, {"cpu:1", {Op{OpKind::kLmHead}}}};
    exchange_ = Exchange::CreateInProcess(ExchangeSpec::ForRoute(route_, 5, 1 << 16));
    ASSERT_OK_AND_ASSIGN(pipeline_,
                         MakeExchangePipeline(exchange_, route_, shape_, kVocab, kHidden));
    frame_.Reserve(shape_);
    output_.Reserve(shape_, kVocab, kHidden);
  }
  // A frame with one sequence of three tokens.
  void FillFrame() {
    frame_.Clear();
    frame_.tokens = {3, 4, 5};
    frame_.block_ids = {2};
    frame_.logit_rows = {2};
    frame_.targets = {-1};
    transport::SequenceStep step;
    step.sequence_id = 9;
    step.num_rows = 3;
    step.num_blocks = 1;
    step.num_logit_rows = 1;
    step.flags = transport::SequenceStep::kSample;
    frame_.sequences = {step};
    frame_.header.epoch = 5;
    frame_.header.step = 77;
    frame_.header.num_sequences = 1;
    frame_.header.num_rows = 3;
    frame_.header.num_block_ids = 1;
    frame_.header.num_logit_rows = 1;
  }

  StepShape shape_;
  Route route_;
  std::shared_ptr<Exchange> exchange_;
  std::unique_ptr<Pipeline> pipeline_;
  StepFrame frame_;
  StepOutput output_;
};

TEST_F(PipelineTest, WorkersThatShareRowsCountAsOne) {
  const std::vector<Op> ops = {Op{OpKind::kMlp, 0}};
  const Route route = {{"cpu:0", {Op{OpKind::kEmbedding}}},
                       {"cpu:1", ops, {{"cpu:1", 1}, {"cpu:2", 1}}},
                       {"cpu:2", ops},
                       {"cpu:3", {Op{OpKind::kLmHead}}}};
  std::shared_ptr<Exchange> exchange =
      Exchange::CreateInProcess(ExchangeSpec::ForRoute(route, 5, 1 << 16));
  ASSERT_OK_AND_ASSIGN(const auto pipeline,
                       MakeExchangePipeline(exchange, route, shape_, kVocab, kHidden));
  EXPECT_THAT(pipeline->segment_workers(), ::testing::ElementsAre(0, 1, 1, 2));
  EXPECT_FALSE(pipeline->one_step_at_a_time());
}

// Groups that are the same workers, or have none in common, never wait for each other in a circle.
TEST_F(PipelineTest, GroupsThatOverlapTakeOneStepAtATime) {
  const auto one_at_a_time = [&](const std::vector<std::vector<Member>>& groups) {
    Route route = {{"a", {Op{OpKind::kEmbedding}}}};
    for (const auto& group : groups) {
      route.push_back({group.front().worker, {Op{OpKind::kMlp, 0}}, group});
    }
    std::shared_ptr<Exchange> exchange =
        Exchange::CreateInProcess(ExchangeSpec::ForRoute(route, 5, 1 << 16));
    return (*MakeExchangePipeline(exchange, route, shape_, kVocab, kHidden))->one_step_at_a_time();
  };
  EXPECT_FALSE(one_at_a_time({{{"a", 1}, {"b", 1}}, {{"a", 2}, {"b", 1}}}));
  EXPECT_FALSE(one_at_a_time({{{"a", 1}, {"b", 1}}, {{"c", 1}, {"d", 1}}}));
  EXPECT_TRUE(one_at_a_time({{{"a", 1}, {"b", 1}}, {{"b", 1}, {"a", 1}}}));
  EXPECT_TRUE(one_at_a_time({{{"a", 1}, {"b", 1}, {"c", 1}}, {{"b", 1}, {"c", 1}}}));
}

TEST_F(PipelineTest, AStepGoesToTheFirstWorkerAndComesBackFromTheLast) {
  EXPECT_EQ(pipeline_->epoch(), 5u);
  std::thread workers([&] {
    auto receiver = exchange_->Receiver(transport::kCoordinator, "cpu:0");
    auto sender = exchange_->Sender("cpu:1", transport::kCoordinator);
    ASSERT_OK(receiver);
    ASSERT_OK(sender);
    StepFrame frame;
    frame.Reserve(shape_);
    std::vector<float> hidden(16 * 8);
    ASSERT_OK(transport::ReceiveStep(**receiver, shape_, {.hidden_size = 8}, 5, &frame,
                                     {.hidden = absl::MakeSpan(hidden)}, absl::Seconds(10)));
    auto computing = std::make_shared<FakeWorkers>(shape_, kVocab, 8, 5);
    ASSERT_OK(transport::SendOutput(**sender, computing->Compute(frame), absl::Seconds(10)));
    EXPECT_TRUE(computing->errors().empty());
  });
  FillFrame();
  ASSERT_OK(pipeline_->Send(frame_));
  bool came = false;
  while (!came) {
    pipeline_->Wait(absl::Seconds(10));
    ASSERT_OK_AND_ASSIGN(came, pipeline_->Poll(&output_));
  }
  workers.join();
  EXPECT_EQ(output_.header.step, 77u);
  ASSERT_EQ(output_.sequences.size(), 1u);
  EXPECT_EQ(output_.sequences[0].token, FakeWorkers::Hash({3, 4, 5}, kVocab));
  ASSERT_OK_AND_ASSIGN(came, pipeline_->Poll(&output_));
  EXPECT_FALSE(came);
}

TEST_F(PipelineTest, AWakeBeforeTheWaitIsNotLost) {
  pipeline_->Wake();
  const absl::Time begin = absl::Now();
  pipeline_->Wait(absl::Seconds(20));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  // It counts once: the next wait sleeps.
  pipeline_->Wait(absl::Milliseconds(20));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(20));
}

TEST_F(PipelineTest, AnAbortEndsTheWaitAndThePoll) {
  std::thread aborting([&] {
    absl::SleepFor(absl::Milliseconds(10));
    exchange_->Abort();
  });
  const absl::Time begin = absl::Now();
  pipeline_->Wait(absl::Seconds(20));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  aborting.join();
  EXPECT_THAT(pipeline_->Poll(&output_),
              StatusIs(absl::StatusCode::kAborted, ::testing::HasSubstr("ended")));
  FillFrame();
  EXPECT_THAT(pipeline_->Send(frame_), StatusIs(absl::StatusCode::kAborted, ::testing::_));
}

TEST_F(PipelineTest, NamesAMissingEdge) {
  const Route other = {{"cpu:7", {Op{OpKind::kEmbedding}}}};
  EXPECT_THAT(MakeExchangePipeline(exchange_, other, shape_, kVocab, kHidden),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("cpu:7")));
}

}  // namespace
}  // namespace dovetail::coordinator
