// Links over the library that stands in for NCCL, between two processes, of which one may die.
#include <stdlib.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "tests/integration/two_processes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "worker/device/nccl_link.h"
#include "worker/device/simt_device.h"

namespace dovetail::worker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

constexpr int kMostEdges = 4;
constexpr int64_t kMostBytes = 5 << 20;
constexpr absl::Duration kLong = absl::Seconds(60);
constexpr absl::Duration kReaction = absl::Seconds(5);
constexpr char kEdge[] = "cuda:0 -> cuda:1";

struct Wiring {
  NcclId ids[kMostEdges];
  std::atomic<bool> aborted;
};

// The rows of message `index`: each has a length and content of its own.
std::vector<uint8_t> Rows(uint64_t seed, int index, int64_t most_bytes) {
  std::mt19937_64 random(seed * 1000 + static_cast<uint64_t>(index));
  // As many short ones as long ones.
  const double bytes = std::exp(
      std::uniform_real_distribution<double>(0, std::log(static_cast<double>(most_bytes)))(random));
  std::vector<uint8_t> rows(static_cast<size_t>(std::max(bytes, 1.0)));
  uint64_t state = random();
  for (uint8_t& byte : rows) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<uint8_t>(state >> 56);
  }
  return rows;
}

class NcclLinkTest : public testing::TwoProcesses<Wiring> {
 protected:
  static void SetUpTestSuite() { ASSERT_EQ(setenv("DOVETAIL_NCCL_LIBRARY", NCCL_STAND_IN, 1), 0); }
  void TearDown() override {
    TwoProcesses::TearDown();
    // What the two have met by is gone with them.
    std::stringstream sockets;
    sockets << std::ifstream("/proc/net/unix").rdbuf();
    for (const NcclId& id : extra().ids) {
      if (id.internal[0] == 0) continue;
      EXPECT_THAT(sockets.str(), Not(HasSubstr(id.internal)));
    }
    for (const auto& file : std::filesystem::directory_iterator("/dev/shm")) {
      EXPECT_THAT(file.path().string(), Not(HasSubstr("nccl")));
    }
  }

  LinkEdge Edge(std::string name = kEdge) {
    return {.name = std::move(name), .aborted = [this] { return extra().aborted.load(); }};
  }
  // The sender's part of the wiring, then the receiver's: marks 1 and 2 are theirs.
  absl::Status MakeIds(int side, int edges) {
    for (int i = 0; i < edges; ++i) {
      DT_ASSIGN_OR_RETURN(extra().ids[side + 2 * i], NcclComm::MakeId());
    }
    Reach(side, 1);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<NcclSender>> JoinedSender(Device* device, int num_slots,
                                                           int64_t slot_bytes) {
    DT_RETURN_IF_ERROR(MakeIds(0, 1));
    DT_ASSIGN_OR_RETURN(auto sender,
                        NcclSender::Begin(device, Edge(), extra().ids[0], num_slots, slot_bytes));
    DT_RETURN_IF_ERROR(sender->Join(kLong));
    return sender;
  }
  absl::StatusOr<std::unique_ptr<NcclReceiver>> JoinedReceiver(Device* device) {
    AwaitReached(0, 1);
    DT_ASSIGN_OR_RETURN(auto receiver, NcclReceiver::Begin(device, Edge(), extra().ids[0]));
    DT_RETURN_IF_ERROR(receiver->Join(kLong));
    return receiver;
  }

  // By copies of the device, as the rows of a step come and go.
  static absl::Status SendRows(SimtDevice* device, NcclSender* sender,
                               const std::vector<uint8_t>& rows, absl::Duration timeout) {
    const auto bytes = static_cast<int64_t>(rows.size());
    DT_ASSIGN_OR_RETURN(uint8_t* const to, sender->Next(bytes, timeout));
    device->Upload(to, rows.data(), bytes);
    DT_RETURN_IF_ERROR(device->Wait());
    return sender->Send(bytes);
  }
  static absl::Status ExpectRows(SimtDevice* device, NcclReceiver* receiver, DeviceBuffer* buffer,
                                 const std::vector<uint8_t>& rows) {
    DT_RETURN_IF_ERROR(receiver->Receive(buffer->data(), static_cast<int64_t>(rows.size()), kLong));
    std::vector<uint8_t> got(rows.size());
    device->Download(got.data(), buffer->data(), static_cast<int64_t>(got.size()));
    DT_RETURN_IF_ERROR(device->Wait());
    return got == rows ? absl::OkStatus() : absl::DataLossError("other rows came");
  }

  // A receiver that joins, and then lives on without receiving anything.
  Side SilentReceiver() {
    return [this]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(const auto receiver, JoinedReceiver(&device));
      Reach(1, 1);
      absl::SleepFor(kLong);
      return absl::OkStatus();
    };
  }
  Side SilentSender() {
    return [this]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 1, 100));
      Reach(0, 2);
      absl::SleepFor(kLong);
      return absl::OkStatus();
    };
  }
  // Waits for rows that do not come.
  Side WaitingReceiver(absl::Duration timeout) {
    return [this, timeout]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(100));
      DT_ASSIGN_OR_RETURN(const auto receiver, JoinedReceiver(&device));
      Reach(1, 2);
      return Measure(1, [&] { return receiver->Receive(buffer.data(), 100, timeout); });
    };
  }
  // Waits for a slot, when all are on their way.
  Side WaitingSender(absl::Duration timeout) {
    return [this, timeout]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 2, kMostBytes));
      const std::vector<uint8_t> rows(kMostBytes);
      for (int i = 0; i < 2; ++i) {
        DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), rows, kLong));
      }
      Reach(0, 2);
      return Measure(0, [&] { return sender->Next(100, timeout).status(); });
    };
  }

  // The side that waits says so `code`, soon after `event`, and has slept meanwhile.
  void ExpectEndsSoon(int side, absl::StatusCode code, const std::function<void()>& event) {
    absl::SleepFor(absl::Seconds(1));  // so that the wait is longer than what is around it
    const absl::Time then = absl::Now();
    event();
    const Result result = Join(side);
    EXPECT_LT(absl::Now() - then, kReaction);
    EXPECT_THAT(result.status, StatusIs(code, HasSubstr(kEdge)));
    EXPECT_LT(result.cpu, 0.2 * result.wall) << result.wall;
  }
};

TEST_F(NcclLinkTest, RowsArriveInOrderAndUnchanged) {
  const uint64_t seed = testing::TestSeed();
  constexpr int kMessages = 60;
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 3, kMostBytes));
        for (int i = 0; i < kMessages; ++i) {
          DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), Rows(seed, i, kMostBytes), kLong));
        }
        return sender->Next(1, kLong).status();  // the slot of the one before the last two
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
        DT_ASSIGN_OR_RETURN(const auto receiver, JoinedReceiver(&device));
        for (int i = 0; i < kMessages; ++i) {
          DT_RETURN_IF_ERROR(
              ExpectRows(&device, receiver.get(), &buffer, Rows(seed, i, kMostBytes)));
        }
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
      DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 2, kMostBytes));
      for (int i = 0; i < 20; ++i) {
        DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), Rows(seed, i, kMostBytes), kLong));
      }
      AwaitReached(1, 1);
      return absl::OkStatus();
    }();
  });
  std::thread second([&] {
    received = [&]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
      DT_ASSIGN_OR_RETURN(const auto receiver, JoinedReceiver(&device));
      for (int i = 0; i < 20; ++i) {
        DT_RETURN_IF_ERROR(ExpectRows(&device, receiver.get(), &buffer, Rows(seed, i, kMostBytes)));
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
  const uint64_t seed = testing::TestSeed();
  const auto side = [&](int own) {
    return [&, own]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
      DT_RETURN_IF_ERROR(MakeIds(own, 2));
      AwaitReached(1 - own, 1);
      std::vector<std::unique_ptr<NcclSender>> senders;
      std::vector<std::unique_ptr<NcclReceiver>> receivers;
      for (int i = 0; i < 2; ++i) {
        DT_ASSIGN_OR_RETURN(
            auto sender,
            NcclSender::Begin(&device, Edge(), extra().ids[own + 2 * i], 3, kMostBytes));
        senders.push_back(std::move(sender));
        DT_ASSIGN_OR_RETURN(auto receiver,
                            NcclReceiver::Begin(&device, Edge(), extra().ids[1 - own + 2 * i]));
        receivers.push_back(std::move(receiver));
      }
      // Both begin with the ends that the other one joins last.
      for (const auto& sender : senders) DT_RETURN_IF_ERROR(sender->Join(kLong));
      for (const auto& receiver : receivers) DT_RETURN_IF_ERROR(receiver->Join(kLong));
      const std::vector<uint8_t> rows = Rows(seed, 0, kMostBytes);
      for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 6; ++i) {  // as many as there are slots
          std::vector<uint8_t> large(kMostBytes / 2, static_cast<uint8_t>(10 * round + i));
          DT_RETURN_IF_ERROR(SendRows(&device, senders[i % 2].get(), large, kLong));
        }
        for (int i = 0; i < 6; ++i) {
          const std::vector<uint8_t> large(kMostBytes / 2, static_cast<uint8_t>(10 * round + i));
          DT_RETURN_IF_ERROR(ExpectRows(&device, receivers[i % 2].get(), &buffer, large));
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
        DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 3, kMostBytes));
        std::vector<uint8_t> rows(kMostBytes);
        for (int i = 0; i < 3; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), rows, kLong));
        }
        const absl::Status full = sender->Next(1, absl::Milliseconds(300)).status();
        if (full.code() != absl::StatusCode::kDeadlineExceeded) {
          return absl::InternalError(absl::StrCat("not full: ", full.ToString()));
        }
        Reach(0, 2);
        for (int i = 3; i < 6; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), rows, kLong));
        }
        AwaitReached(1, 1);
        return absl::OkStatus();
      },
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(kMostBytes));
        DT_ASSIGN_OR_RETURN(const auto receiver, JoinedReceiver(&device));
        AwaitReached(0, 2);
        std::vector<uint8_t> rows(kMostBytes);
        for (int i = 0; i < 6; ++i) {
          rows[0] = static_cast<uint8_t>(i);
          DT_RETURN_IF_ERROR(ExpectRows(&device, receiver.get(), &buffer, rows));
        }
        Reach(1, 1);
        return absl::OkStatus();
      });
  EXPECT_OK(Join(0).status);
  EXPECT_OK(Join(1).status);
}

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
        DT_ASSIGN_OR_RETURN(const auto receiver,
                            NcclReceiver::Begin(&device, Edge(), extra().ids[0]));
        Reach(1, 2);
        return Measure(1, [&] { return receiver->Join(kLong); });
      });
  AwaitReached(1, 2);
  ExpectEndsSoon(1, absl::StatusCode::kUnavailable, [&] { Kill(0); });
}

TEST_F(NcclLinkTest, ReceiverKilledBeforeItPostedAnything) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 1, 100));
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

TEST_F(NcclLinkTest, EndOfTheEpochEndsEachWait) {
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
        DT_ASSIGN_OR_RETURN(const auto sender,
                            NcclSender::Begin(&device, Edge(), extra().ids[0], 1, 100));
        Reach(0, 2);
        return Measure(0, [&] { return sender->Join(kLong); });
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
        DT_ASSIGN_OR_RETURN(const auto sender,
                            NcclSender::Begin(&device, Edge(), extra().ids[0], 1, 100));
        return Measure(0, [&] { return sender->Join(absl::Seconds(2)); });
      },
      [] { return absl::OkStatus(); });
  ExpectEndsSoon(0, absl::StatusCode::kDeadlineExceeded, [] {});
  EXPECT_OK(Join(1).status);
}

TEST_F(NcclLinkTest, LengthsThatDifferAreAnErrorOfBothEnds) {
  Start(
      [&]() -> absl::Status {
        SimtDevice device(0);
        DT_ASSIGN_OR_RETURN(const auto sender, JoinedSender(&device, 1, 100));
        DT_RETURN_IF_ERROR(SendRows(&device, sender.get(), std::vector<uint8_t>(99), kLong));
        AwaitReached(1, 3);
        return sender->Next(100, kLong).status();
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

}  // namespace
}  // namespace dovetail::worker
