#include "transport/nccl_api.h"

#include <stdlib.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace dovetail::transport {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;

TEST(NcclApiTest, AbsentLibraryIsNotFound) {
  for (const char* path : {"/nowhere/libnccl.so.2", "libnccl-of-nobody.so"}) {
    EXPECT_THAT(OpenNccl(path),
                StatusIs(absl::StatusCode::kNotFound,
                         AllOf(HasSubstr(path), HasSubstr("DOVETAIL_NCCL_LIBRARY"))));
  }
}

TEST(NcclApiTest, FileThatIsNoLibraryIsNamed) {
  const testing::TempDir dir;
  const std::string path = dir.File("libnccl.so.2");
  std::ofstream(path) << "not a library, but longer than the header of one would be, by some words";
  EXPECT_THAT(OpenNccl(path), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(path)));
}

TEST(NcclApiTest, LibraryWithoutTheFunctionsSaysWhichAreMissing) {
  EXPECT_THAT(OpenNccl("libc.so.6"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no ncclGetVersion")));
  EXPECT_THAT(OpenNccl(NCCL_INCOMPLETE),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(NCCL_INCOMPLETE), HasSubstr("no ncclGetUniqueId"),
                             HasSubstr("ncclSend"), HasSubstr("ncclGetLastError"),
                             Not(HasSubstr("ncclGetVersion")))));
}

TEST(NcclApiTest, OldLibraryIsRefusedByItsVersion) {
  EXPECT_THAT(OpenNccl(NCCL_OLD),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("NCCL 2.17.1"), HasSubstr("2.18.1 or a later one"))));
}

TEST(NcclApiTest, StandInOpens) {
  ASSERT_OK_AND_ASSIGN(const NcclApi api, OpenNccl(NCCL_STAND_IN));
  EXPECT_EQ(api.version, kNcclOldestVersion);
  EXPECT_STREQ(api.GetErrorString(kNcclInProgress), "NCCL operation in progress");
  EXPECT_STREQ(api.GetLastError(nullptr), "");
  EXPECT_EQ(api.GroupEnd(), kNcclInvalidUsage);
}

TEST(NcclApiTest, StandInChecksArgumentsAsNcclDoes) {
  ASSERT_OK_AND_ASSIGN(const NcclApi api, OpenNccl(NCCL_STAND_IN));
  NcclUniqueId id;
  ASSERT_EQ(api.GetUniqueId(&id), kNcclSuccess);
  NcclConfig config{.blocking = 0};
  NcclCommHandle comm = nullptr;
  EXPECT_EQ(api.CommInitRankConfig(&comm, 2, id, 2, &config), kNcclInvalidArgument);
  EXPECT_EQ(api.CommInitRankConfig(&comm, 2, id, -1, &config), kNcclInvalidArgument);
  NcclConfig foreign = config;
  foreign.magic = 0;
  EXPECT_EQ(api.CommInitRankConfig(&comm, 2, id, 0, &foreign), kNcclInvalidArgument);
  ASSERT_EQ(api.CommInitRankConfig(&comm, 2, id, 0, &config), kNcclInProgress);
  uint8_t byte = 0;
  void* const stream = &byte;  // is not looked at
  EXPECT_EQ(api.Send(&byte, 1, kNcclUint8, 0, comm, stream), kNcclInvalidArgument);  // to itself
  EXPECT_EQ(api.Send(&byte, 1, kNcclUint8, 1, comm, stream), kNcclInvalidArgument);  // not joined
  EXPECT_EQ(api.CommFinalize(comm), kNcclInvalidArgument);
  EXPECT_EQ(api.CommAbort(comm), kNcclSuccess);
}

TEST(NcclApiTest, ProcessOpensTheLibraryThatTheEnvironmentNamesOnce) {
  ASSERT_EQ(setenv("DOVETAIL_NCCL_LIBRARY", NCCL_STAND_IN, 1), 0);
  std::vector<const NcclApi*> apis(8);
  std::vector<std::thread> threads;
  for (const NcclApi*& api : apis) threads.emplace_back([&api] { api = Nccl().value(); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(apis, Each(apis[0]));
  EXPECT_EQ(apis[0]->version, kNcclOldestVersion);
}

}  // namespace
}  // namespace dovetail::transport
