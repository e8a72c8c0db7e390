// Links by NCCL whose other end dies, is silent, or does what it should not.
#include "tests/integration/nccl_link_fixture.h"

namespace dovetail::worker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST_F(NcclLinkTest, SenderKilledBeforeItJoined) {
  Start(
      [&]() -> absl::Status {
        DT_RETURN_IF_ERROR(MakeIds(0, 1));
        absl::SleepFor(kLong);
        return absl::OkStatus();
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        AwaitReached(0, 1);
        NcclLinks links(&device);
        DT_RETURN_IF_ERROR(links.AddReceiver(Edge(), extra().ids[0]).status());
        Reach(1, 2);
        return Measure(1, [&] { return links.Join(kLong); });
      });
  AwaitReached(1, 2);
  ExpectEndsSoon(1, absl::StatusCode::kUnavailable, [&] { Kill(0); });
}

TEST_F(NcclLinkTest, ReceiverKilledBeforeItPostedAnything) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 1, 100));
        Reach(0, 2);
        return Measure(0, [&] { return sender->Next(100, kLong).status(); });
      },
      [&]() -> absl::Status {
        AwaitReached(0, 1);
        DT_ASSIGN_OR_RETURN(const auto comm,
                            NcclComm::Begin(Edge(), extra().ids[0], NcclComm::Role::kReceiver));
        absl::SleepFor(kLong);
        return absl::OkStatus();
      });
  AwaitReached(0, 2);
  ExpectEndsSoon(0, absl::StatusCode::kUnavailable, [&] { Kill(1); });
}

TEST_F(NcclLinkTest, SenderKilledWhileRowsAreWaitedFor) {
  Start(SilentSender(), WaitingReceiver(kLong));
  AwaitReached(1, 2);
  ExpectEndsSoon(1, absl::StatusCode::kUnavailable, [&] { Kill(0); });
}

TEST_F(NcclLinkTest, ReceiverKilledWhileAllSlotsAreOnTheirWay) {
  Start(WaitingSender(kLong), SilentReceiver());
  AwaitReached(0, 2);
  ExpectEndsSoon(0, absl::StatusCode::kUnavailable, [&] { Kill(1); });
}

TEST_F(NcclLinkTest, EndOfTheEpochEndsASendersWait) {
  Start(WaitingSender(kLong), SilentReceiver());
  AwaitReached(0, 2);
  ExpectEndsSoon(0, absl::StatusCode::kAborted, [&] { extra().aborted = true; });
}

TEST_F(NcclLinkTest, EndOfTheEpochEndsAReceiversWait) {
  Start(SilentSender(), WaitingReceiver(kLong));
  AwaitReached(1, 2);
  ExpectEndsSoon(1, absl::StatusCode::kAborted, [&] { extra().aborted = true; });
}

TEST_F(NcclLinkTest, EndOfTheEpochEndsJoining) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_RETURN_IF_ERROR(MakeIds(0, 1));
        NcclLinks links(&device);
        DT_RETURN_IF_ERROR(links.AddSender(Edge(), extra().ids[0], 1, 100).status());
        Reach(0, 2);
        return Measure(0, [&] { return links.Join(kLong); });
      },
      [] { return absl::OkStatus(); });
  AwaitReached(0, 2);
  ExpectEndsSoon(0, absl::StatusCode::kAborted, [&] { extra().aborted = true; });
  EXPECT_OK(Join(1).status);
}

TEST_F(NcclLinkTest, RowsThatNeverComeAreWaitedForAsLongAsTheTimeout) {
  Start(SilentSender(), WaitingReceiver(absl::Seconds(2)));
  ExpectEndsSoon(1, absl::StatusCode::kDeadlineExceeded, [] {});
}

TEST_F(NcclLinkTest, ReceiverThatNeverReceivesIsWaitedForAsLongAsTheTimeout) {
  Start(WaitingSender(absl::Seconds(2)), SilentReceiver());
  ExpectEndsSoon(0, absl::StatusCode::kDeadlineExceeded, [] {});
}

TEST_F(NcclLinkTest, OtherEndThatNeverJoinsIsWaitedForAsLongAsTheTimeout) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_RETURN_IF_ERROR(MakeIds(0, 1));
        NcclLinks links(&device);
        DT_RETURN_IF_ERROR(links.AddSender(Edge(), extra().ids[0], 1, 100).status());
        return Measure(0, [&] { return links.Join(absl::Seconds(2)); });
      },
      [] { return absl::OkStatus(); });
  ExpectEndsSoon(0, absl::StatusCode::kDeadlineExceeded, [] {});
  EXPECT_OK(Join(1).status);
}

TEST_F(NcclLinkTest, LengthsThatDifferAreAnErrorOfBothEnds) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 1, 100));
        DT_RETURN_IF_ERROR(SendRows(&device, sender, std::vector<uint8_t>(99), kLong));
        AwaitReached(1, 3);
        const absl::Time deadline = absl::Now() + kLong;
        absl::Status status;  // that the other end failed is known a moment later
        do {
          status = sender->Next(100, kLong).status();
        } while (status.ok() && absl::Now() < deadline);
        return status;
      },
      [&]() -> absl::Status {
        const absl::Status status = WaitingReceiver(kLong)();
        Reach(1, 3);
        return status;
      });
  EXPECT_THAT(Join(1).status, StatusIs(absl::StatusCode::kInternal,
                                       AllOf(HasSubstr(kEdge), HasSubstr("invalid argument"),
                                             HasSubstr("differ in length"))));
  EXPECT_THAT(Join(0).status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(kEdge)));
}

TEST_F(NcclLinkTest, LinksOfWhichNotAllAreIdleEndTogether) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_RETURN_IF_ERROR(MakeIds(0, 2));
        NcclLinks links(&device);
        std::vector<RowSender*> senders(2);
        for (int i = 0; i < 2; ++i) {
          DT_ASSIGN_OR_RETURN(senders[i],
                              links.AddSender(Edge(), extra().ids[2 * i], 1, kMostBytes));
        }
        DT_RETURN_IF_ERROR(links.Join(kLong));
        return SendRows(&device, senders[0], std::vector<uint8_t>(kMostBytes), kLong);
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(100));
        AwaitReached(0, 1);
        NcclLinks links(&device);
        std::vector<RowReceiver*> receivers(2);
        for (int i = 0; i < 2; ++i) {
          DT_ASSIGN_OR_RETURN(receivers[i], links.AddReceiver(Edge(), extra().ids[2 * i]));
        }
        DT_RETURN_IF_ERROR(links.Join(kLong));
        return receivers[1]->Receive(buffer.data(), 100, kLong);
      });
  EXPECT_OK(Join(0).status);
  EXPECT_THAT(Join(1).status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(kEdge)));
}

}  // namespace
}  // namespace dovetail::worker
