#include "coordinator/watched_pipeline.h"

#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

TEST(WatchedPipelineTest, ErrorsReadAsTheReasonOnceThereIsOne) {
  StepShape shape;
  shape.max_rows = 4;
  shape.max_sequences = 2;
  shape.max_logit_rows = 2;
  shape.context_length = 64;
  shape.num_kv_blocks = 4;
  auto fake = std::make_shared<testing::FakeWorkers>(shape, 32, 8, /*epoch=*/5);
  auto watch = std::make_shared<PipelineWatch>();
  auto watched = MakeWatchedPipeline(fake->MakePipeline(), watch);
  EXPECT_EQ(watched->epoch(), 5u);
  transport::StepOutput output;
  ASSERT_OK_AND_ASSIGN(const bool came, watched->Poll(&output));
  EXPECT_FALSE(came);

  fake->BreakPoll(absl::AbortedError("the exchange was aborted"));
  EXPECT_THAT(watched->Poll(&output), StatusIs(absl::StatusCode::kAborted, HasSubstr("aborted")));
  watch->SetReason(absl::UnavailableError("worker cpu:1 was lost"));
  watch->SetReason(absl::UnavailableError("a later reason does not count"));
  EXPECT_THAT(watched->Poll(&output),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cpu:1 was lost")));
  fake->BreakSend(absl::AbortedError("the exchange was aborted"));
  EXPECT_THAT(watched->Send(transport::StepFrame()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cpu:1 was lost")));
}

}  // namespace
}  // namespace dovetail::coordinator
