// Two processes with links over the library that stands in for NCCL, and what their sides often do.
//
// Marks (TwoProcesses::Reach): 1 on the sender's side: the ids are made; 2 on a side: it begins the
// wait that the test is about.
#ifndef DOVETAIL_TESTS_INTEGRATION_NCCL_LINK_FIXTURE_H_
#define DOVETAIL_TESTS_INTEGRATION_NCCL_LINK_FIXTURE_H_

#include <stdlib.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "tests/integration/two_processes.h"
#include "tests/testing/status_matchers.h"
#include "worker/device/nccl_links.h"
#include "worker/device/simt_device.h"

namespace dovetail::worker {

inline constexpr int kMostEdges = 4;
inline constexpr int64_t kMostBytes = 5 << 20;
inline constexpr absl::Duration kLong = absl::Seconds(60);
inline constexpr absl::Duration kReaction = absl::Seconds(5);
inline constexpr char kEdge[] = "cuda:0 -> cuda:1";

struct Wiring {
  NcclId ids[kMostEdges];  // of edges that begin on one side and on the other in turn
  std::atomic<bool> aborted;
};

// The rows of message `index`: each has a length and content of its own.
inline std::vector<uint8_t> Rows(uint64_t seed, int index, int64_t most_bytes) {
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
      EXPECT_THAT(sockets.str(), ::testing::Not(::testing::HasSubstr(id.internal)));
    }
    for (const auto& file : std::filesystem::directory_iterator("/dev/shm")) {
      EXPECT_THAT(file.path().string(), ::testing::Not(::testing::HasSubstr("nccl")));
    }
  }

  LinkEdge Edge(std::string name = kEdge) {
    return {.name = std::move(name), .aborted = [this] { return extra().aborted.load(); }};
  }
  // The sender's part of the wiring of its edges.
  absl::Status MakeIds(int side, int edges) {
    for (int i = 0; i < edges; ++i) {
      DT_ASSIGN_OR_RETURN(extra().ids[side + 2 * i], NcclComm::MakeId());
    }
    Reach(side, 1);
    return absl::OkStatus();
  }
  absl::StatusOr<RowSender*> JoinSender(NcclLinks* links, int num_slots, int64_t slot_bytes) {
    DT_RETURN_IF_ERROR(MakeIds(0, 1));
    DT_ASSIGN_OR_RETURN(RowSender* const sender,
                        links->AddSender(Edge(), extra().ids[0], num_slots, slot_bytes));
    DT_RETURN_IF_ERROR(links->Join(kLong));
    return sender;
  }
  absl::StatusOr<RowReceiver*> JoinReceiver(NcclLinks* links) {
    AwaitReached(0, 1);
    DT_ASSIGN_OR_RETURN(RowReceiver* const receiver, links->AddReceiver(Edge(), extra().ids[0]));
    DT_RETURN_IF_ERROR(links->Join(kLong));
    return receiver;
  }

  // By copies of the device, as the rows of a step come and go.
  static absl::Status SendRows(SimtDevice* device, RowSender* sender,
                               const std::vector<uint8_t>& rows, absl::Duration timeout) {
    const auto bytes = static_cast<int64_t>(rows.size());
    DT_ASSIGN_OR_RETURN(uint8_t* const to, sender->Next(bytes, timeout));
    device->Upload(to, rows.data(), bytes);
    DT_RETURN_IF_ERROR(device->Wait());
    return sender->Send(bytes);
  }
  static absl::Status ExpectRows(SimtDevice* device, RowReceiver* receiver, DeviceBuffer* buffer,
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
      NcclLinks links(&device);
      DT_RETURN_IF_ERROR(JoinReceiver(&links).status());
      absl::SleepFor(kLong);
      return absl::OkStatus();
    };
  }
  Side SilentSender() {
    return [this]() -> absl::Status {
      SimtDevice device(0);
      NcclLinks links(&device);
      DT_RETURN_IF_ERROR(JoinSender(&links, 1, 100).status());
      absl::SleepFor(kLong);
      return absl::OkStatus();
    };
  }
  // Waits for rows that do not come.
  Side WaitingReceiver(absl::Duration timeout) {
    return [this, timeout]() -> absl::Status {
      SimtDevice device(0);
      DT_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.AllocateLink(100));
      NcclLinks links(&device);
      DT_ASSIGN_OR_RETURN(RowReceiver* const receiver, JoinReceiver(&links));
      Reach(1, 2);
      return Measure(1, [&] { return receiver->Receive(buffer.data(), 100, timeout); });
    };
  }
  // Waits for a slot, when all are on their way.
  Side WaitingSender(absl::Duration timeout) {
    return [this, timeout]() -> absl::Status {
      SimtDevice device(0);
      NcclLinks links(&device);
      DT_ASSIGN_OR_RETURN(RowSender* const sender, JoinSender(&links, 2, kMostBytes));
      const std::vector<uint8_t> rows(kMostBytes);
      for (int i = 0; i < 2; ++i) {
        DT_RETURN_IF_ERROR(SendRows(&device, sender, rows, kLong));
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
    EXPECT_THAT(result.status, testing::StatusIs(code, ::testing::HasSubstr(kEdge)));
    EXPECT_LT(result.cpu, 0.2 * result.wall) << result.wall;
  }
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_TESTS_INTEGRATION_NCCL_LINK_FIXTURE_H_
