#include "worker/all_gather.h"

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr int kMaxRows = 64;

class AllGatherTest : public ::testing::Test {
 protected:
  struct Worker {
    std::unique_ptr<GatherRings> rings;
    std::unique_ptr<AllGather> gather;
  };

  void Open(int members, uint64_t ring_bytes, absl::Duration timeout = kLong) {
    Segment segment = {"w0", {{OpKind::kMlp, 0}}};
    for (int i = 0; i < members; ++i) segment.members.push_back({absl::StrCat("w", i), 1});
    exchange_ = transport::Exchange::CreateInProcess(
        transport::ExchangeSpec::ForRoute({segment}, 1, ring_bytes));
    workers_.resize(members);
    for (int i = 0; i < members; ++i) {
      workers_[i].rings = std::make_unique<GatherRings>(exchange_.get(), segment.members[i].worker);
      workers_[i].gather =
          AllGather::Open(workers_[i].rings.get(), segment, i, kMaxRows, timeout).value();
    }
  }

  // What row `row` has in `column`, which `member` makes.
  static float Value(int step, int64_t row, int64_t column) {
    return static_cast<float>(step * 100000 + row * 1000 + column);
  }

  // Each member as a thread: `steps` steps of two gathers of [rows, cols].
  void RunAll(int64_t rows, int64_t cols, int steps, bool at_first) {
    RowSplit split;
    split.members = static_cast<int32_t>(workers_.size());
    for (int i = 0; i < split.members; ++i) split.shares[i] = 1 + i;
    const std::vector<Range> columns = SplitRows(cols, 1, split);
    std::vector<std::thread> threads;
    for (int member = 0; member < split.members; ++member) {
      threads.emplace_back([&, member] {
        std::vector<float> x(static_cast<size_t>(rows * cols));
        for (int step = 1; step <= steps; ++step) {
          workers_[member].gather->BeginStep(static_cast<uint64_t>(step));
          for (int repeat = 0; repeat < 2; ++repeat) {
            RunOne(member, step + 7 * repeat, rows, cols, columns, at_first, &x);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void RunOne(int member, int step, int64_t rows, int64_t cols, const std::vector<Range>& columns,
              bool at_first, std::vector<float>* x) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = columns[member].begin; c < columns[member].end; ++c) {
        (*x)[row * cols + c] = Value(step, row, c);
      }
    }
    const GatheredBuffer buffer = {
        .data = reinterpret_cast<uint8_t*>(x->data()), .row_bytes = cols * 4, .group_bytes = 4};
    bool finite = member != 1 || step != 2;
    const absl::Status status =
        workers_[member].gather->Run({&buffer, 1}, rows, columns, at_first, &finite);
    if (!status.ok()) ADD_FAILURE() << status.message();
    if (at_first && member > 0) return;
    EXPECT_EQ(finite, step != 2);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < cols; ++c) {
        if ((*x)[row * cols + c] == Value(step, row, c)) continue;
        ADD_FAILURE() << "member " << member << " step " << step << " row " << row << " column "
                      << c;
        return;
      }
    }
  }

  std::unique_ptr<transport::Exchange> exchange_;
  std::vector<Worker> workers_;
};

TEST_F(AllGatherTest, EveryMemberGetsTheColumnsOfAll) {
  for (const int members : {2, 3, 5}) {
    Open(members, 1 << 16);
    RunAll(1, 36, 300, /*at_first=*/false);
    Open(members, 1 << 16);
    RunAll(9, 36, 50, /*at_first=*/false);
  }
}

// Each message is longer than a ring.
TEST_F(AllGatherTest, LongMessagesNeverWaitInACircle) {
  for (const int members : {2, 3, 4}) {
    Open(members, 4096);
    RunAll(kMaxRows, 97, 20, /*at_first=*/false);
  }
}

TEST_F(AllGatherTest, OrTheFirstMemberAlone) {
  for (const uint64_t ring_bytes : {uint64_t{1} << 16, uint64_t{4096}}) {
    Open(3, ring_bytes);
    RunAll(kMaxRows / 2, 97, 20, /*at_first=*/true);
  }
}

TEST_F(AllGatherTest, TheEndOfTheEpochWakesWhoWaits) {
  Open(2, 4096);
  std::vector<float> x(8);
  const GatheredBuffer buffer = {
      .data = reinterpret_cast<uint8_t*>(x.data()), .row_bytes = 32, .group_bytes = 4};
  const std::vector<Range> columns = {{0, 4}, {4, 8}};
  std::thread abort([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    exchange_->Abort();
  });
  bool finite = true;
  const absl::Time start = absl::Now();
  EXPECT_THAT(workers_[0].gather->Run({&buffer, 1}, 1, columns, false, &finite),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("w1 -> w0 (rows)")));
  EXPECT_LT(absl::Now() - start, kLong / 2);
  abort.join();
}

TEST_F(AllGatherTest, ALostMemberEndsTheWait) {
  Open(2, 4096, absl::Milliseconds(30));
  std::vector<float> x(8);
  const GatheredBuffer buffer = {
      .data = reinterpret_cast<uint8_t*>(x.data()), .row_bytes = 32, .group_bytes = 4};
  const std::vector<Range> columns = {{0, 4}, {4, 8}};
  bool finite = true;
  EXPECT_THAT(workers_[0].gather->Run({&buffer, 1}, 1, columns, false, &finite),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("w1 -> w0")));
}

// Members that are not at the same step, or disagree about what they share, say so.
TEST_F(AllGatherTest, RowsOfSomethingElseAreRefused) {
  Open(2, 4096);
  std::vector<float> x(8);
  const GatheredBuffer buffer = {
      .data = reinterpret_cast<uint8_t*>(x.data()), .row_bytes = 32, .group_bytes = 4};
  const std::vector<Range> columns = {{0, 4}, {4, 8}};
  bool finite = true;
  workers_[1].gather->BeginStep(8);
  std::thread other([&] {
    bool other_finite = true;
    EXPECT_FALSE(workers_[1].gather->Run({&buffer, 1}, 1, columns, false, &other_finite).ok());
  });
  workers_[0].gather->BeginStep(9);
  EXPECT_THAT(workers_[0].gather->Run({&buffer, 1}, 1, columns, false, &finite),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("rows of w1: 32 bytes of step 8, gather 1; expected 32 of step 9, "
                                 "gather 1")));
  other.join();
}

}  // namespace
}  // namespace dovetail::worker
