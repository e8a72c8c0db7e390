#include "transport/exchange.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/posix.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "transport/exchange_layout.h"

namespace dovetail::transport {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;
using Edge = std::pair<std::string, std::string>;

constexpr absl::Duration kLong = absl::Seconds(60);

Route TwoWorkers() {
  return {{"cpu:0", {{OpKind::kEmbedding, -1}}}, {"cpu:1", {{OpKind::kLmHead, -1}}}};
}

TEST(ExchangeSpec, FollowsTheRoute) {
  const ExchangeSpec spec = ExchangeSpec::ForRoute(TwoWorkers(), 7, 1000);
  EXPECT_EQ(spec.epoch, 7u);
  EXPECT_EQ(spec.endpoints, (std::vector<std::string>{kCoordinator, "cpu:0", "cpu:1"}));
  EXPECT_EQ(spec.edges, (std::vector<Edge>{
                            {kCoordinator, "cpu:0"}, {"cpu:0", "cpu:1"}, {"cpu:1", kCoordinator}}));
}

TEST(ExchangeSpec, HasOneRingPerPairOfAReentrantRoute) {
  Route route;
  for (const char* worker : {"a", "b", "a", "b", "a"}) {
    route.push_back({worker, {{OpKind::kMlp, 0}}});
  }
  const ExchangeSpec spec = ExchangeSpec::ForRoute(route, 1, 64);
  EXPECT_EQ(spec.edges,
            (std::vector<Edge>{{kCoordinator, "a"}, {"a", "b"}, {"b", "a"}, {"a", kCoordinator}}));
}

// Steps come to the first of the workers that share rows, and go on from it; all of them have rings
// for rows to each other.
TEST(ExchangeSpec, WorkersThatShareRowsHaveRingsToEachOther) {
  const std::vector<Op> ops = {{OpKind::kMlp, 0}};
  const Route route = {{"a", {{OpKind::kEmbedding}}},
                       {"b", ops, {{"b", 1}, {"a", 2}}},
                       {"b", ops, {{"b", 1}, {"a", 1}}},
                       {"c", {{OpKind::kLmHead}}}};
  const ExchangeSpec spec = ExchangeSpec::ForRoute(route, 1, 4096);
  EXPECT_EQ(spec.endpoints, (std::vector<std::string>{kCoordinator, "a", "b", "c"}));
  EXPECT_EQ(spec.edges,
            (std::vector<Edge>{
                {kCoordinator, "a"}, {"a", "b"}, {"b", "a"}, {"b", "c"}, {"c", kCoordinator}}));
  EXPECT_EQ(spec.gathers, (std::vector<Edge>{{"b", "a"}, {"a", "b"}}));

  const testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(auto made, Exchange::Create(dir.File("e"), spec));
  ASSERT_OK_AND_ASSIGN(auto opened, Exchange::Open(dir.File("e"), 1));
  ASSERT_OK_AND_ASSIGN(auto steps, opened->Receiver("b", "a"));
  ASSERT_OK_AND_ASSIGN(auto rows, opened->Receiver("b", "a", EdgeKind::kGather));
  ASSERT_OK_AND_ASSIGN(auto sender, made->Sender("b", "a", EdgeKind::kGather));
  ASSERT_OK(sender->Send({}, kLong));
  EXPECT_FALSE(steps->Ready());
  EXPECT_TRUE(rows->Ready());
  EXPECT_THAT(made->Sender("b", "c", EdgeKind::kGather),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no edge b -> c (rows)")));
}

TEST(ExchangeSpec, CountsItsBytes) {
  const testing::TempDir dir;
  const ExchangeSpec spec = ExchangeSpec::ForRoute(TwoWorkers(), 1, 100000);
  ASSERT_OK(Exchange::Create(dir.File("e"), spec));
  struct stat info;
  ASSERT_EQ(stat(dir.File("e").c_str(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), spec.TotalBytes());
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_GE(spec.TotalBytes(), 3u * 131072);
}

TEST(Exchange, CarriesAMessageThroughTheFile) {
  const testing::TempDir dir;
  const std::string path = dir.File("exchange-7");
  ASSERT_OK_AND_ASSIGN(auto made,
                       Exchange::Create(path, ExchangeSpec::ForRoute(TwoWorkers(), 7, 4096)));
  ASSERT_OK_AND_ASSIGN(auto opened, Exchange::Open(path, 7));
  EXPECT_EQ(opened->epoch(), 7u);
  ASSERT_OK_AND_ASSIGN(auto sender, made->Sender("cpu:0", "cpu:1"));
  ASSERT_OK_AND_ASSIGN(auto receiver, opened->Receiver("cpu:0", "cpu:1"));
  ASSERT_OK_AND_ASSIGN(auto bell, opened->DoorbellOf("cpu:1"));
  const uint32_t seen = bell->Sequence();
  const uint64_t value = 0x1122334455667788;
  const ConstBytes piece = {&value, sizeof(value)};
  ASSERT_OK(sender->Send({&piece, 1}, kLong));
  EXPECT_NE(bell->Sequence(), seen);
  uint64_t got = 0;
  ASSERT_OK_AND_ASSIGN(const size_t size, receiver->Begin(kLong));
  ASSERT_EQ(size, sizeof(got));
  ASSERT_OK(receiver->Read(&got, sizeof(got), kLong));
  EXPECT_EQ(got, value);
}

TEST(Exchange, SaysWhatASenderHasTouched) {
  const testing::TempDir dir;
  const std::string path = dir.File("exchange-7");
  ASSERT_OK_AND_ASSIGN(auto made,
                       Exchange::Create(path, ExchangeSpec::ForRoute(TwoWorkers(), 7, 4096)));
  ASSERT_OK_AND_ASSIGN(auto opened, Exchange::Open(path, 7));
  ASSERT_OK_AND_ASSIGN(auto sender, made->Sender("cpu:0", "cpu:1"));
  ASSERT_OK_AND_ASSIGN(auto receiver, opened->Receiver("cpu:0", "cpu:1"));
  EXPECT_EQ(opened->BytesTouchedBySending("cpu:0"), 0u);
  const std::string text(1000, 'x');
  const ConstBytes piece = {text.data(), text.size()};
  for (const uint64_t touched : {1008u, 2016u, 3024u, 4032u, 4096u, 4096u}) {
    ASSERT_OK(sender->Send({&piece, 1}, kLong));
    ASSERT_OK(receiver->Begin(kLong).status());
    ASSERT_OK(receiver->End(kLong));
    EXPECT_EQ(opened->BytesTouchedBySending("cpu:0"), touched);
  }
  EXPECT_EQ(opened->BytesTouchedBySending("cpu:1"), 0u) << "it only read";
  EXPECT_EQ(opened->BytesTouchedBySending("nobody"), 0u);
}

TEST(Exchange, ReplacesALeftoverFile) {
  const testing::TempDir dir;
  const std::string path = dir.File("exchange-1");
  ASSERT_OK(WriteFileAtomically(path, "leftover"));
  ASSERT_OK(WriteFileAtomically(path + ".tmp", "of a crash"));
  ASSERT_OK(Exchange::Create(path, ExchangeSpec::ForRoute(TwoWorkers(), 1, 4096)));
  EXPECT_OK(Exchange::Open(path, 1));
  EXPECT_NE(access((path + ".tmp").c_str(), F_OK), 0);
}

TEST(Exchange, NamesWhatIsNotThere) {
  auto exchange = Exchange::CreateInProcess(ExchangeSpec::ForRoute(TwoWorkers(), 5, 4096));
  EXPECT_THAT(exchange->Sender("cpu:1", "cpu:0"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no edge cpu:1 -> cpu:0")));
  EXPECT_THAT(exchange->Receiver("cpu:1", "cpu:2"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no endpoint \"cpu:2\"")));
  EXPECT_THAT(exchange->DoorbellOf("gpu"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no endpoint \"gpu\"")));
  const testing::TempDir dir;
  EXPECT_THAT(Exchange::Open(dir.File("absent"), 1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
}

TEST(Exchange, ListsAllMistakesOfASpec) {
  const testing::TempDir dir;
  const ExchangeSpec spec = {.epoch = 1,
                             .endpoints = {"cpu:0", "", "cpu:0", std::string(56, 'x')},
                             .edges = {{"cpu:0", "nobody"}, {"cpu:0", "nobody"}},
                             .ring_bytes = 0};
  const absl::Status status = Exchange::Create(dir.File("e"), spec).status();
  for (const char* part : {"first endpoint must be \"coordinator\"", "rings of 0 bytes",
                           "endpoint \"\"", "\"cpu:0\" is there twice", "1 to 55 bytes",
                           "names an unknown endpoint", "edge cpu:0 -> nobody is there twice"}) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)));
  }
}

TEST(Exchange, RefusesWhatDoesNotFit) {
  const testing::TempDir dir;
  ExchangeSpec spec = {.epoch = 1, .endpoints = {kCoordinator}, .ring_bytes = kMaxRingBytes};
  for (int i = 0; i < 4000; ++i) {  // 16 TiB
    if (i < 1000) spec.endpoints.push_back(absl::StrCat("w", i));
    spec.edges.emplace_back(spec.endpoints[i / 1000], absl::StrCat("w", i % 1000));
  }
  EXPECT_THAT(Exchange::Create(dir.File("e"), spec),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr(absl::StrCat("needs ", spec.TotalBytes(), " bytes"))));
  EXPECT_NE(access(dir.File("e.tmp").c_str(), F_OK), 0);
}

TEST(Exchange, AbortReachesEveryMapping) {
  const testing::TempDir dir;
  ASSERT_OK_AND_ASSIGN(
      auto made, Exchange::Create(dir.File("e"), ExchangeSpec::ForRoute(TwoWorkers(), 1, 4096)));
  ASSERT_OK_AND_ASSIGN(auto opened, Exchange::Open(dir.File("e"), 1));
  ASSERT_OK_AND_ASSIGN(auto bell, opened->DoorbellOf("cpu:1"));
  const uint32_t seen = bell->Sequence();
  EXPECT_FALSE(opened->aborted());
  std::thread waiting([&] { bell->Wait(seen, kDefaultSpin, kLong); });
  const absl::Time begin = absl::Now();
  made->Abort();
  waiting.join();
  EXPECT_LT(absl::Now() - begin, kLong / 2);
  EXPECT_TRUE(opened->aborted());
}

// Changes to a file that another process might have made.
class TamperedExchange : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_.File("exchange-3");
    const ExchangeSpec spec = ExchangeSpec::ForRoute(TwoWorkers(), 3, 4096);
    ASSERT_OK(Exchange::Create(path_, spec));
    layout_ = LayOut(spec.endpoints.size(), spec.edges.size(), spec.ring_bytes);
    ASSERT_OK(Exchange::Open(path_, 3));
  }
  template <typename T>
  absl::Status OpenWith(uint64_t offset, T value) {
    absl::StatusOr<UniqueFd> fd = OpenFile(path_, O_RDWR);
    T original;
    EXPECT_EQ(pread(fd->get(), &original, sizeof(T), offset), static_cast<ssize_t>(sizeof(T)));
    EXPECT_EQ(pwrite(fd->get(), &value, sizeof(T), offset), static_cast<ssize_t>(sizeof(T)));
    const absl::Status status = Exchange::Open(path_, 3).status();
    EXPECT_EQ(pwrite(fd->get(), &original, sizeof(T), offset), static_cast<ssize_t>(sizeof(T)));
    return status;
  }

  testing::TempDir dir_;
  std::string path_;
  ExchangeLayout layout_;
};

TEST_F(TamperedExchange, IsRefusedForItsHeader) {
  const auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  const auto kInternal = absl::StatusCode::kInternal;
  EXPECT_THAT(OpenWith<uint64_t>(offsetof(ExchangeHeader, magic), 1),
              StatusIs(kPrecondition, HasSubstr("not an exchange file")));
  EXPECT_THAT(OpenWith<uint32_t>(offsetof(ExchangeHeader, version), 1),
              StatusIs(kPrecondition, HasSubstr("exchange format 1")));
  EXPECT_THAT(OpenWith<uint64_t>(offsetof(ExchangeHeader, epoch), 4),
              StatusIs(kPrecondition, HasSubstr("epoch 4, not 3")));
  for (const uint32_t count : {0u, 2u, 4u, 1025u, 0xffffffffu}) {
    EXPECT_THAT(OpenWith<uint32_t>(offsetof(ExchangeHeader, num_endpoints), count),
                StatusIs(kInternal, HasSubstr("damaged")));
    EXPECT_THAT(OpenWith<uint32_t>(offsetof(ExchangeHeader, num_edges), count),
                StatusIs(kInternal, HasSubstr("damaged")));
  }
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{4095}, uint64_t{8192}, ~uint64_t{0}}) {
    EXPECT_THAT(OpenWith<uint64_t>(offsetof(ExchangeHeader, ring_bytes), bytes),
                StatusIs(kInternal, HasSubstr("damaged")));
    EXPECT_THAT(OpenWith<uint64_t>(offsetof(ExchangeHeader, total_bytes), bytes),
                StatusIs(kInternal, HasSubstr("damaged")));
  }
}

TEST_F(TamperedExchange, IsRefusedForItsTables) {
  const auto kInternal = absl::StatusCode::kInternal;
  const uint64_t endpoint = layout_.endpoints_offset + sizeof(EndpointEntry);
  for (const uint64_t offset : {uint64_t{0}, layout_.DoorbellOffset(1) + 4, layout_.total_bytes}) {
    EXPECT_THAT(OpenWith<uint64_t>(endpoint + offsetof(EndpointEntry, doorbell_offset), offset),
                StatusIs(kInternal, HasSubstr("endpoint 1: doorbell at")));
  }
  struct Name {
    char text[56];
  };
  Name endless;
  std::memset(endless.text, 'x', sizeof(endless.text));
  EXPECT_THAT(OpenWith(endpoint, endless), StatusIs(kInternal, HasSubstr("name without an end")));
  EXPECT_THAT(OpenWith(endpoint, Name{}), StatusIs(kInternal, HasSubstr("endpoint \"\"")));
  EXPECT_THAT(OpenWith(endpoint, Name{"cpu:1"}), StatusIs(kInternal, HasSubstr("there twice")));
  const uint64_t edge = layout_.edges_offset + sizeof(EdgeEntry);
  for (const uint32_t kind : {1u, 2u}) {  // the first: an edge of steps after one of rows
    EXPECT_THAT(OpenWith<uint32_t>(edge + offsetof(EdgeEntry, kind), kind),
                StatusIs(kInternal, HasSubstr(kind == 1 ? "edge 2: is of kind 0" : "kind 2")));
  }
  EXPECT_THAT(OpenWith<uint32_t>(edge + offsetof(EdgeEntry, from), 3),
              StatusIs(kInternal, HasSubstr("edge 1: from endpoint 3")));
  EXPECT_THAT(OpenWith<uint32_t>(edge + offsetof(EdgeEntry, to), 0xffffffff),
              StatusIs(kInternal, HasSubstr("edge 1: from endpoint 1 to 4294967295")));
  for (const uint64_t offset : {uint64_t{0}, layout_.RingOffset(1) + 8, layout_.RingOffset(2),
                                layout_.total_bytes, ~uint64_t{0}}) {
    EXPECT_THAT(OpenWith<uint64_t>(edge + offsetof(EdgeEntry, ring_offset), offset),
                StatusIs(kInternal, HasSubstr("edge 1: ring at")));
  }
}

TEST_F(TamperedExchange, IsRefusedWhenCutShort) {
  for (const uint64_t bytes :
       {layout_.total_bytes - 1, layout_.rings_offset, uint64_t{127}, uint64_t{0}}) {
    ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes)), 0);
    EXPECT_FALSE(Exchange::Open(path_, 3).ok()) << bytes;
  }
}

}  // namespace
}  // namespace dovetail::transport
