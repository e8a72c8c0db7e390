// Rows over links by NCCL: order, content, and who waits for whom.
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/integration/nccl_link_fixture.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

TEST_F(NcclLinkTest, RowsArriveInOrderAndUnchanged) {
  const uint64_t seed = testing::TestSeed();
  constexpr int kMessages = 60;
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 3, kMostBytes));
        for (int i = 0; i < kMessages; ++i) {
          DT_RETURN_IF_ERROR(SendRows(&device, sender, Rows(seed, i, kMostBytes), kLong));
        }
        AwaitReached(1, 1);  // rows on their way go with their sender
        return absl::OkStatus();
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowReceiver* const receiver, JoinReceiver(&links));
        for (int i = 0; i < kMessages; ++i) {
          DT_RETURN_IF_ERROR(ExpectRows(&device, receiver, &buffer, Rows(seed, i, kMostBytes)));
        }
        Reach(1, 1);
        return absl::OkStatus();
      });
  EXPECT_OK(Join(0).status);
  EXPECT_OK(Join(1).status);
}

TEST_F(NcclLinkTest, EndsMayBeThreadsOfOneProcess) {
  const uint64_t seed = testing::TestSeed();
  absl::Status sent, received;
  std::thread first([&] {
    sent = [&]() -> absl::Status {
      SimtDevice device(0);
      NcclLinks links(&device);
      DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 2, kMostBytes));
      for (int i = 0; i < 20; ++i) {
        DT_RETURN_IF_ERROR(SendRows(&device, sender, Rows(seed, i, kMostBytes), kLong));
      }
      AwaitReached(1, 1);
      return absl::OkStatus();
    }();
  });
  std::thread second([&] {
    received = [&]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
      NcclLinks links(&device);
      DT_ASSIGN_OR_RETURN(RowReceiver* const receiver, JoinReceiver(&links));
      for (int i = 0; i < 20; ++i) {
        DT_RETURN_IF_ERROR(ExpectRows(&device, receiver, &buffer, Rows(seed, i, kMostBytes)));
      }
      Reach(1, 1);
      return absl::OkStatus();
    }();
  });
  first.join();
  second.join();
  EXPECT_OK(sent);
  EXPECT_OK(received);
}

TEST_F(NcclLinkTest, CircleOfEdgesMoves) {
  const auto side = [&](int own) {
    return [&, own]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
      DT_RETURN_IF_ERROR(MakeIds(own, 2));
      AwaitReached(1 - own, 1);
      std::vector<RowSender*> senders(2);
      std::vector<RowReceiver*> receivers(2);
      NcclLinks links(&device);
      for (int i = 0; i < 2; ++i) {
        DT_ASSIGN_OR_RETURN(senders[i],
                            links.AddSender(Edge(), extra().ids[own + 2 * i], 3, kMostBytes));
        DT_ASSIGN_OR_RETURN(receivers[i], links.AddReceiver(Edge(), extra().ids[1 - own + 2 * i]));
      }
      DT_RETURN_IF_ERROR(links.Join(kLong));
      for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 6; ++i) {  // as many as there are slots
          std::vector<uint8_t> large(kMostBytes / 2, static_cast<uint8_t>(10 * round + i));
          DT_RETURN_IF_ERROR(SendRows(&device, senders[i % 2], large, kLong));
        }
        for (int i = 0; i < 6; ++i) {
          const std::vector<uint8_t> large(kMostBytes / 2, static_cast<uint8_t>(10 * round + i));
          DT_RETURN_IF_ERROR(ExpectRows(&device, receivers[i % 2], &buffer, large));
        }
      }
      Reach(own, 2);
      AwaitReached(1 - own, 2);
      return absl::OkStatus();
    };
  };
  Start(side(0), side(1));
  EXPECT_OK(Join(0).status);
  EXPECT_OK(Join(1).status);
}

TEST_F(NcclLinkTest, SendsDoNotWaitForTheReceiverAndAFullLinkGoesOnAfterATimeout) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 3, kMostBytes));
        std::vector<uint8_t> rows(kMostBytes);
        for (int i = 0; i < 3; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(SendRows(&device, sender, rows, kLong));
        }
        const absl::Status full = sender->Next(1, absl::Milliseconds(300)).status();
        if (full.code() != absl::StatusCode::kDeadlineExceeded) {
          return absl::InternalError(absl::StrCat("not full: ", full.ToString()));
        }
        Reach(0, 2);
        for (int i = 3; i < 6; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(SendRows(&device, sender, rows, kLong));
        }
        AwaitReached(1, 1);
        return absl::OkStatus();
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
        NcclLinks links(&device);
        DT_ASSIGN_OR_RETURN(RowReceiver* const receiver, JoinReceiver(&links));
        AwaitReached(0, 2);
        std::vector<uint8_t> rows(kMostBytes);
        for (int i = 0; i < 6; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(ExpectRows(&device, receiver, &buffer, rows));
        }
        Reach(1, 1);
        return absl::OkStatus();
      });
  EXPECT_OK(Join(0).status);
  EXPECT_OK(Join(1).status);
}

}  // namespace
}  // namespace dovetail::worker
