#include "coordinator/cluster_member.h"

#include "dovetail/v1/cluster.pb.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<std::string> kNames = {"cpu:0", "cuda:0", "simt:0"};

v1::Register Gpu() {
  v1::Register r;
  r.set_protocol_version(kClusterProtocolVersion);
  r.set_worker("cuda:0");
  r.set_kind("cuda");
  r.set_run_dir_id("here");
  r.set_num_threads(4);
  r.set_memory_available_bytes(uint64_t{24} << 30);
  r.set_packed_layout("p16_device");
  r.set_compute_capability(89);
  r.set_device_description("NVIDIA GeForce RTX 4090");
  r.add_weight_types("Q4_K");
  return r;
}

TEST(ClusterMemberTest, AGpuIsWhatItSays) {
  ASSERT_OK_AND_ASSIGN(const ClusterMember member, CheckRegister(Gpu(), {kNames, "here", ""}));
  EXPECT_EQ(member.device.kind, DeviceKind::kCuda);
  EXPECT_EQ(member.device.compute_capability, 89);
  EXPECT_EQ(member.device.layout, PackedLayout::kP16Device);
  EXPECT_EQ(member.device.memory_bytes, int64_t{24} << 30);
  EXPECT_EQ(member.description, "NVIDIA GeForce RTX 4090");
  v1::Register other = Gpu();
  other.set_compute_capability(90);
  ASSERT_OK_AND_ASSIGN(const ClusterMember hopper, CheckRegister(other, {kNames, "here", ""}));
  EXPECT_FALSE(SameDevice(member, hopper)) << "a plan for one card is not one for another";
}

TEST(ClusterMemberTest, ACardThatIsTooOldIsRefusedByName) {
  v1::Register old = Gpu();
  old.set_compute_capability(70);
  old.set_device_description("Tesla V100");
  EXPECT_THAT(CheckRegister(old, {kNames, "here", ""}).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("cuda:0"), HasSubstr("Tesla V100"), HasSubstr("7.0"),
                             HasSubstr("need 7.5 or later"))));
}

TEST(ClusterMemberTest, AKindIsThatOfTheName) {
  v1::Register r = Gpu();
  r.set_kind("cpu");
  EXPECT_THAT(CheckRegister(r, {kNames, "here", ""}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("worker cuda:0 says that it is a `cpu` device")));
  r = Gpu();
  r.set_worker("simt:0");
  r.set_kind("simt");
  r.set_compute_capability(0);
  ASSERT_OK_AND_ASSIGN(const ClusterMember member, CheckRegister(r, {kNames, "here", ""}));
  EXPECT_EQ(member.device.kind, DeviceKind::kSimt);
}

v1::Register OfAnotherHost() {
  v1::Register r = Gpu();
  r.set_worker("host-b/cuda:0");
  r.clear_run_dir_id();
  r.set_cluster_key("0123456789abcdef");
  r.set_data_address(":7000");
  return r;
}

TEST(ClusterMemberTest, AWorkerOfAnotherHostShowsTheKeyAndIsFound) {
  const Admission admission = {{"host-b/cuda:0"}, "here", "0123456789abcdef"};
  v1::Register r = OfAnotherHost();
  ASSERT_OK_AND_ASSIGN(const ClusterMember member, CheckRegister(r, admission, "10.0.0.2"));
  EXPECT_EQ(member.device.kind, DeviceKind::kCuda);
  EXPECT_EQ(member.data_address, "10.0.0.2:7000");
  EXPECT_EQ(CheckRegister(r, admission, "fd00::2")->data_address, "[fd00::2]:7000");
  r.set_data_address("data.host-b:7001");
  EXPECT_EQ(CheckRegister(r, admission, "10.0.0.2")->data_address, "data.host-b:7001");
  for (const char* nowhere : {"", ":", ":0", "10.0.0.2", "10.0.0.2:0"}) {
    r.set_data_address(nowhere);
    EXPECT_THAT(CheckRegister(r, admission, "").status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("can be reached nowhere")))
        << nowhere;
  }
}

TEST(ClusterMemberTest, WithoutTheKeyItIsRefused) {
  v1::Register r = OfAnotherHost();
  r.set_run_dir_id("here");  // which proves nothing elsewhere
  for (const char* shown : {"", "0123456789abcdeX", "0123456789abcdef0"}) {
    r.set_cluster_key(shown);
    EXPECT_THAT(
        CheckRegister(r, {{"host-b/cuda:0"}, "here", "0123456789abcdef"}, "10.0.0.2").status(),
        StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("does not show the cluster's key")))
        << shown;
  }
  r.set_cluster_key("");
  EXPECT_THAT(CheckRegister(r, {{"host-b/cuda:0"}, "here", ""}, "10.0.0.2").status(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("key")))
      << "where there is no key nobody has it";
  v1::Register local = Gpu();
  local.set_run_dir_id("elsewhere");
  local.set_cluster_key("0123456789abcdef");
  EXPECT_THAT(CheckRegister(local, {kNames, "here", "0123456789abcdef"}).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another run directory")));
}

}  // namespace
}  // namespace dovetail::coordinator
