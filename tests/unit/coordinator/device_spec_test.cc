#include "coordinator/placement/device_spec.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

std::string Mistake(const std::string& spec) {
  const absl::StatusOr<DeviceInfo> device = ParseDeviceSpec(spec);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument) << spec;
  return std::string(device.status().message());
}

TEST(DeviceSpecTest, ReadsGpus) {
  ASSERT_OK_AND_ASSIGN(const DeviceInfo device,
                       ParseDeviceSpec("cuda:0:24GiB:sm89:bw=1008GB/s:tops=660:bus=25GB/s"));
  EXPECT_EQ(device.name, "cuda:0");
  EXPECT_EQ(device.kind, DeviceKind::kCuda);
  EXPECT_EQ(device.memory_bytes, 24 * kGiB);
  EXPECT_EQ(device.reserve_bytes, kGiB) << "the default of GPUs";
  EXPECT_EQ(device.compute_capability, 89);
  EXPECT_DOUBLE_EQ(device.bandwidth, 1008e9);
  EXPECT_DOUBLE_EQ(device.int8_ops, 660e12);
  EXPECT_DOUBLE_EQ(device.upload_bandwidth, 25e9);
  EXPECT_FALSE(device.weight_types.empty());
  EXPECT_EQ(device.layout, PackedLayout::kP16Device);
}

TEST(DeviceSpecTest, ReadsGpusThatAreNotThere) {
  ASSERT_OK_AND_ASSIGN(const DeviceInfo device, ParseDeviceSpec("simt:1:2GiB:threads=2"));
  EXPECT_EQ(device.kind, DeviceKind::kSimt);
  EXPECT_TRUE(device.has_gpu_kernels());
  EXPECT_EQ(device.layout, PackedLayout::kP16Device);
  EXPECT_EQ(device.budget(), 2 * kGiB);
}

TEST(DeviceSpecTest, ReadsCpusAndOtherHosts) {
  ASSERT_OK_AND_ASSIGN(const DeviceInfo cpu,
                       ParseDeviceSpec("cpu:1:512GiB:numa1:threads=32:reserve=8GiB:bw=200GB/s"));
  EXPECT_EQ(cpu.kind, DeviceKind::kCpu);
  EXPECT_EQ(cpu.numa_node, 1);
  EXPECT_EQ(cpu.num_threads, 32);
  EXPECT_EQ(cpu.budget(), 504 * kGiB);
  ASSERT_OK_AND_ASSIGN(const DeviceInfo far, ParseDeviceSpec("host-b/cuda:3:80GB"));
  EXPECT_EQ(far.name, "host-b/cuda:3");
  EXPECT_EQ(far.kind, DeviceKind::kCuda);
  EXPECT_EQ(far.bandwidth, 0) << "not given";
}

TEST(DeviceSpecTest, SaysWhatIsWrong) {
  EXPECT_EQ(Mistake("cuda:0"),
            "--device cuda:0: expected NAME:MEMORY[:OPTIONS], as in cuda:0:24GiB:sm89 or "
            "cpu:0:64GiB:numa0");
  EXPECT_EQ(Mistake("gpu:0:24GiB"),
            "--device gpu:0:24GiB: unknown kind of device `gpu`; known: cuda, cpu, simt");
  EXPECT_THAT(Mistake("npu:0:64GiB"), HasSubstr("there are no workers for npu devices"));
  EXPECT_THAT(Mistake("cuda:x:24GiB"), HasSubstr("`cuda:x` is not a device's name"));
  EXPECT_THAT(Mistake("cuda:*:24GiB"), HasSubstr("`cuda:*` is not a device's name"));
  EXPECT_THAT(Mistake("cuda:0:24GiB:sm70"), HasSubstr("compute capability 7.5 (sm75) or later"));
  EXPECT_THAT(Mistake("cpu:0:24GiB:sm89"), HasSubstr("smNN is for GPUs"));
  EXPECT_THAT(Mistake("cuda:0:24GiB:numa0"), HasSubstr("numaN is for CPU workers"));
  EXPECT_THAT(Mistake("cuda:0:24GiB:bw=fast"), HasSubstr("is not a rate such as bw=1008GB/s"));
  EXPECT_THAT(Mistake("cuda:0:24GiB:bus=fast"), HasSubstr("is not a rate such as bus=25GB/s"));
  EXPECT_THAT(Mistake("cpu:0:24GiB:bus=25GB/s"), HasSubstr("bus=RATE is for GPUs"));
  EXPECT_THAT(Mistake("cpu:0:24GiB:threads=0"), HasSubstr("is not a number from 1 to 4096"));
  EXPECT_THAT(Mistake("cuda:0:1GiB"), HasSubstr("the reserve (1.00 GiB) leaves nothing"));
  EXPECT_EQ(Mistake("cuda:0:24XB:fast"),
            "--device cuda:0:24XB:fast: `24XB` is not a size such as 8GiB, 512MiB, 1.5GB or 1000\n"
            "--device cuda:0:24XB:fast: unknown option `fast`; known: smNN, numaN, bw=RATE, "
            "bus=RATE, tops=N, threads=N, reserve=SIZE");
}

TEST(DeviceSpecTest, ListsTheMistakesOfAllAndNamesTwice) {
  EXPECT_THAT(ParseDeviceSpecs({"cuda:0:24GiB", "cuda:0:12GiB", "x"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--device cuda:0:12GiB: cuda:0 is given twice\n"
                       "--device x: expected NAME:MEMORY[:OPTIONS], as in cuda:0:24GiB:sm89 or "
                       "cpu:0:64GiB:numa0"));
  ASSERT_OK_AND_ASSIGN(const auto devices, ParseDeviceSpecs({"cuda:0:24GiB", "cpu:0:64GiB"}));
  EXPECT_EQ(DeviceNames(devices), "cuda:0, cpu:0");
}

}  // namespace
}  // namespace dovetail::coordinator
