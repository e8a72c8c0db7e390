// The shim's device: what a GPU writes to the host is there when it was waited for and not before,
// in the order in which it was enqueued, whether it was taken down or not; and what that costs.
#include "worker/device/simt_device.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

constexpr int kCount = 21;  // not whole vectors
constexpr int64_t kBytes = kCount * sizeof(int32_t);

class SimtDeviceTest : public ::testing::Test {
 protected:
  SimtDeviceTest() : device_(1) {
    host_ = *device_.AllocateHost(4 * kBytes);
    memory_ = *device_.Allocate(4 * kBytes);
  }

  int32_t* host() { return reinterpret_cast<int32_t*>(host_.data()); }
  std::vector<int32_t> Host() { return {host(), host() + kCount}; }
  void FillHost(int32_t first) { std::iota(host(), host() + kCount, first); }
  static std::vector<int32_t> From(int32_t first) {
    std::vector<int32_t> numbers(kCount);
    std::iota(numbers.begin(), numbers.end(), first);
    return numbers;
  }
  void CopySmall(void* to, const void* from, bool signal) {
    kernels::CopyPieces pieces = {};
    pieces.num = 1;
    pieces.pieces[0] = {to, from, kBytes, nullptr, 0};
    device_.CopySmall(pieces, signal);
  }
  void Up() { CopySmall(memory_.data(), host(), /*signal=*/false); }
  void Down(bool signal) { CopySmall(host(), memory_.data(), signal); }

  SimtDevice device_;
  DeviceBuffer host_, memory_;
};

TEST_F(SimtDeviceTest, WhatComesUpIsReadAtOnce) {
  FillHost(5);
  device_.Upload(memory_.data(), host(), kBytes);
  FillHost(900);
  device_.Download(host(), memory_.data(), kBytes);
  ASSERT_OK(device_.Wait());
  EXPECT_EQ(Host(), From(5));
}

TEST_F(SimtDeviceTest, WhatGoesDownIsThereWhenItWasWaitedFor) {
  FillHost(5);
  Up();
  Down(/*signal=*/true);
  EXPECT_NE(Host(), From(5)) << "too early";
  ASSERT_OK(device_.AwaitSignal());
  EXPECT_EQ(Host(), From(5));

  device_.Download(host(), memory_.data(), kBytes);
  EXPECT_NE(Host(), From(5)) << "too early";
  ASSERT_OK(device_.Wait());
  EXPECT_EQ(Host(), From(5));
}

TEST_F(SimtDeviceTest, ASignalIsForWhatWasEnqueuedBefore) {
  FillHost(5);
  Up();
  Down(/*signal=*/true);
  device_.Download(host() + kCount, memory_.data(), kBytes);
  ASSERT_OK(device_.AwaitSignal());
  EXPECT_EQ(Host(), From(5));
  EXPECT_NE(host()[kCount], 5) << "it came after the signal";
  device_.CopySmall({}, /*signal=*/true);  // nothing but that
  ASSERT_OK(device_.AwaitSignal());
  EXPECT_EQ(host()[kCount], 5);
}

TEST_F(SimtDeviceTest, ASignalIsSeenBeforeTheOneThatCameAfterIt) {
  FillHost(5);
  Up();
  Down(/*signal=*/true);
  device_.Download(host() + kCount, memory_.data(), kBytes);
  device_.CopySmall({}, /*signal=*/true);
  ASSERT_OK(device_.AwaitEarlierSignal(1));
  EXPECT_EQ(Host(), From(5));
  EXPECT_NE(host()[kCount], 5) << "nobody waited for it";
  ASSERT_OK(device_.AwaitSignal());
  EXPECT_EQ(host()[kCount], 5);
  FillHost(17);
  Up();
  Down(/*signal=*/true);
  Down(/*signal=*/true);
  device_.CopySmall({}, /*signal=*/true);
  ASSERT_OK(device_.AwaitEarlierSignal(1)) << "earlier ones, too";
  EXPECT_EQ(Host(), From(17));
}

TEST_F(SimtDeviceTest, WithoutASignalThereIsNothingToSee) {
  FillHost(5);
  Up();
  Down(/*signal=*/false);
  ASSERT_OK(device_.AwaitSignal());
  EXPECT_NE(Host(), From(5));
  ASSERT_OK(device_.Wait());
  EXPECT_EQ(Host(), From(5));
}

TEST_F(SimtDeviceTest, AGraphCopiesAgainAndSignalsAgain) {
  device_.BeginCapture();
  Up();
  Down(/*signal=*/true);
  ASSERT_OK_AND_ASSIGN(const auto graph, device_.EndCapture());
  for (int32_t first : {5, 17, 400}) {
    FillHost(first);
    const DeviceCalls before = device_.calls();
    device_.Launch(*graph);
    EXPECT_NE(Host(), From(first)) << "too early";
    ASSERT_OK(device_.AwaitSignal());
    EXPECT_EQ(Host(), From(first));
    const DeviceCalls after = device_.calls();
    EXPECT_EQ(after.graphs, before.graphs + 1);
    EXPECT_EQ(after.kernels, before.kernels);
    EXPECT_EQ(after.copies, before.copies);
    EXPECT_EQ(after.waits, before.waits);
  }
}

TEST_F(SimtDeviceTest, RowsThatTheDeviceCountsAreThereAsWell) {
  FillHost(5);
  host()[0] = 3;
  device_.Upload(memory_.data(), host(), kBytes);
  kernels::CopyPieces pieces = {};
  pieces.num = 1;
  pieces.pieces[0] = {host(), memory_.data(), 8, reinterpret_cast<int32_t*>(memory_.data()), 12};
  device_.CopySmall(pieces, /*signal=*/true);
  std::fill(host() + 11, host() + kCount, -1);  // what the device does not write
  ASSERT_OK(device_.AwaitSignal());
  std::vector<int32_t> expected = From(5);
  expected[0] = 3;
  std::fill(expected.begin() + 11, expected.end(), -1);
  EXPECT_EQ(Host(), expected);
}

TEST_F(SimtDeviceTest, AKernelThatFailsRaisesNoFlagAndIsToldOf) {
  CopySmall(memory_.data() + 4, host(), /*signal=*/false);  // not on 16 bytes
  Down(/*signal=*/true);
  EXPECT_THAT(device_.AwaitSignal(),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("not aligned")));
}

TEST_F(SimtDeviceTest, CallsAreCounted) {
  const DeviceCalls before = device_.calls();
  device_.Upload(memory_.data(), host(), kBytes);
  device_.Copy(memory_.data() + kBytes, memory_.data(), kBytes);
  device_.Download(host(), memory_.data(), kBytes);
  Down(/*signal=*/true);
  ASSERT_OK(device_.AwaitSignal());
  ASSERT_OK(device_.Wait());
  const DeviceCalls after = device_.calls();
  EXPECT_EQ(after.copies - before.copies, 3);
  EXPECT_EQ(after.kernels - before.kernels, 1);
  EXPECT_EQ(after.graphs - before.graphs, 0);
  EXPECT_EQ(after.waits - before.waits, 1);
}

}  // namespace
}  // namespace dovetail::worker
