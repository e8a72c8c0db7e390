#include "worker/device/await_flag.h"

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

absl::Status NotWaitedFor() {
  ADD_FAILURE() << "the stream was waited for";
  return absl::OkStatus();
}

TEST(AwaitFlag, SeesWhatIsThereAlready) {
  uint64_t flag = 7;
  EXPECT_OK(AwaitFlag(&flag, 7, absl::ZeroDuration(), NotWaitedFor));
  EXPECT_OK(AwaitFlag(&flag, 3, absl::ZeroDuration(), NotWaitedFor));
}

TEST(AwaitFlag, SeesWhatWasWrittenBeforeTheFlag) {
  uint64_t flag = 7;
  int written = 0;
  std::thread gpu([&] {
    written = 42;
    std::atomic_ref<uint64_t>(flag).store(8, std::memory_order_release);
  });
  EXPECT_OK(AwaitFlag(&flag, 8, absl::InfiniteDuration(), NotWaitedFor));
  EXPECT_EQ(written, 42);
  gpu.join();
}

TEST(AwaitFlag, WaitsForTheStreamWhereItTakesLonger) {
  uint64_t flag = 7;
  EXPECT_OK(AwaitFlag(&flag, 8, absl::ZeroDuration(), [&] {
    flag = 8;
    return absl::OkStatus();
  }));
}

TEST(AwaitFlag, TellsOfAGpuThatFailedAndWritesNoFlag) {
  uint64_t flag = 7;
  EXPECT_THAT(AwaitFlag(&flag, 8, absl::Microseconds(10),
                        [] { return absl::InternalError("an illegal memory access"); }),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("illegal memory access")));
}

TEST(AwaitFlag, TellsOfAFlagThatNobodyWillWrite) {
  uint64_t flag = 7;
  EXPECT_THAT(AwaitFlag(&flag, 9, absl::ZeroDuration(), [] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("signalled 7 times, expected 9")));
}

}  // namespace
}  // namespace dovetail::worker
