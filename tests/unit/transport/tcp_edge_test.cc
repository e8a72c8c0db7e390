// Edges between hosts, here between exchanges of one process that know nothing of each other.
#include "transport/tcp_edge.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "transport/remote_edges.h"

namespace dovetail::transport {
namespace {

using ::dovetail::testing::IsOk;
using ::dovetail::testing::StatusIs;
using ::testing::_;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr absl::Duration kShort = absl::Milliseconds(50);
constexpr char kFar[] = "host-b/cpu:0";
constexpr uint64_t kEpoch = 3;

std::string Key(char c = 'k') { return std::string(kEdgeKeyBytes, c); }

RemoteEdge Edge(const std::string& from, const std::string& to, const EdgeListener& listener) {
  return {.from = from, .to = to, .address = absl::StrCat("127.0.0.1:", listener.port())};
}

// A coordinator, and a worker of another host that listens.
class TcpEdgeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(listener_, EdgeListener::Start({"127.0.0.1", 0}));
    listener_->SetKey(Key());
  }
  std::vector<RemoteEdge> BothWays(bool has_answer = false) {
    std::vector<RemoteEdge> edges = {Edge(kCoordinator, kFar, *listener_),
                                     Edge(kFar, kCoordinator, *listener_)};
    for (RemoteEdge& edge : edges) edge.has_answer = has_answer;
    return edges;
  }
  void Open(uint64_t ring_bytes, std::vector<RemoteEdge> edges, const std::string& near_key,
            uint64_t far_epoch, absl::Duration timeout) {
    ExchangeSpec spec{.epoch = kEpoch, .endpoints = {kCoordinator}, .ring_bytes = ring_bytes};
    near_ = Exchange::CreateInProcess(spec);
    far_ = Exchange::CreateInProcess(SpecOfRemoteWorker(kFar, far_epoch, ring_bytes));
    ASSERT_OK(AddRemoteEdges(kCoordinator, edges, near_key, nullptr, timeout, near_.get()));
    ASSERT_OK(AddRemoteEdges(kFar, edges, Key(), listener_.get(), timeout, far_.get()));
  }
  void OpenBothWays(uint64_t ring_bytes, bool has_answer = false) {
    Open(ring_bytes, BothWays(has_answer), Key(), kEpoch, kLong);
    ASSERT_OK(near_->AwaitRemote(kLong));
    ASSERT_OK(far_->AwaitRemote(kLong));
  }

  std::unique_ptr<EdgeListener> listener_;  // outlives far_
  std::unique_ptr<Exchange> near_, far_;
};

std::vector<uint8_t> RandomMessage(std::mt19937_64* random, uint64_t max_bytes) {
  const uint64_t limit = (*random)() % 4 == 0 ? max_bytes : 64;
  std::vector<uint8_t> message((*random)() % (limit + 1));
  for (uint8_t& byte : message) byte = static_cast<uint8_t>((*random)());
  return message;
}

void SendMessages(TensorSender* sender, uint64_t seed, int count, uint64_t max_bytes) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < count; ++i) {
    const std::vector<uint8_t> message = RandomMessage(&random, max_bytes);
    const size_t half = message.size() / 2;
    ASSERT_OK(sender->SendBegin({{message.data(), half}}, message.size() - half, kLong));
    ASSERT_OK(sender->SendRest({{message.data() + half, message.size() - half}}, kLong));
  }
}

void ReceiveMessages(TensorReceiver* receiver, uint64_t seed, int count, uint64_t max_bytes) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < count; ++i) {
    const std::vector<uint8_t> wanted = RandomMessage(&random, max_bytes);
    ASSERT_OK_AND_ASSIGN(const size_t size, receiver->Begin(kLong));
    ASSERT_EQ(size, wanted.size()) << i;
    std::vector<uint8_t> message(size);
    ASSERT_OK(receiver->Read(message.data(), size, kLong));
    ASSERT_OK(receiver->End(kLong));
    ASSERT_TRUE(message == wanted) << "message " << i << " of " << size << " bytes";
  }
}

class TcpEdgeSizeTest : public TcpEdgeTest, public ::testing::WithParamInterface<uint64_t> {};

// Both ways at once, messages longer than both rings together among them.
TEST_P(TcpEdgeSizeTest, CarriesEveryByteInOrder) {
  const uint64_t seed = testing::TestSeed();
  const uint64_t max_bytes = 3 * GetParam() + 5;
  const int count = GetParam() > 100'000 ? 40 : 600;
  OpenBothWays(GetParam());
  const auto run = [&](Exchange* exchange, const char* from, const char* to, bool sends) {
    if (sends) {
      SendMessages(exchange->Sender(from, to)->get(), seed, count, max_bytes);
    } else {
      ReceiveMessages(exchange->Receiver(from, to)->get(), seed, count, max_bytes);
    }
  };
  std::thread a(run, near_.get(), kCoordinator, kFar, true);
  std::thread b(run, far_.get(), kCoordinator, kFar, false);
  std::thread c(run, far_.get(), kFar, kCoordinator, true);
  run(near_.get(), kFar, kCoordinator, false);
  for (std::thread* thread : {&a, &b, &c}) thread->join();
}
INSTANTIATE_TEST_SUITE_P(Rings, TcpEdgeSizeTest, ::testing::Values(64, 4096, 1 << 20));

TEST_F(TcpEdgeTest, WakesWhoWaitsForAMessage) {
  OpenBothWays(4096);
  ASSERT_OK_AND_ASSIGN(auto sender, near_->Sender(kCoordinator, kFar));
  ASSERT_OK_AND_ASSIGN(auto receiver, far_->Receiver(kCoordinator, kFar));
  ASSERT_OK_AND_ASSIGN(auto bell, far_->DoorbellOf(kFar));
  EXPECT_FALSE(receiver->Ready());
  const uint32_t seen = bell->Sequence();
  const char text[] = "now";
  ASSERT_OK(sender->Send({{text, sizeof(text)}}, kLong));
  while (!receiver->Ready()) bell->Wait(seen, absl::ZeroDuration(), kLong);
  ASSERT_OK_AND_ASSIGN(const size_t size, receiver->Begin(kLong));
  EXPECT_EQ(size, sizeof(text));
}

TEST_F(TcpEdgeTest, CarriesTheAnswerBack) {
  OpenBothWays(4096, /*has_answer=*/true);
  ASSERT_OK_AND_ASSIGN(auto sender, far_->Sender(kFar, kCoordinator));
  ASSERT_OK_AND_ASSIGN(auto receiver, near_->Receiver(kFar, kCoordinator));
  ASSERT_OK(sender->Send({{"offer", 5}}, kLong));
  ASSERT_OK_AND_ASSIGN(const size_t size, receiver->Begin(kLong));
  EXPECT_EQ(size, 5u);
  ASSERT_OK(receiver->End(kLong));
  EXPECT_THAT(sender->Answer(kShort), StatusIs(absl::StatusCode::kDeadlineExceeded, _));
  receiver->SetAnswer(77);
  EXPECT_EQ(sender->Answer(kLong).value_or(0), 77u);
  SendMessages(sender.get(), 1, 50, 9000);
  ReceiveMessages(receiver.get(), 1, 50, 9000);
}

TEST_F(TcpEdgeTest, AnEpochsEndWakesItsWaiters) {
  OpenBothWays(4096);
  ASSERT_OK_AND_ASSIGN(auto receiver, far_->Receiver(kCoordinator, kFar));
  std::thread waits(
      [&] { EXPECT_THAT(receiver->Begin(kLong), StatusIs(absl::StatusCode::kAborted, _)); });
  absl::SleepFor(kShort);
  far_->Abort();
  waits.join();
  EXPECT_OK(far_->failure()) << "nothing broke";
}

// What a host does that is gone, a process that was killed, and one that left an epoch first.
TEST_F(TcpEdgeTest, AnEndThatGoesEndsTheEpochOfTheOther) {
  OpenBothWays(4096);
  ASSERT_OK_AND_ASSIGN(auto receiver, near_->Receiver(kFar, kCoordinator));
  far_.reset();
  EXPECT_THAT(receiver->Begin(kLong), StatusIs(absl::StatusCode::kAborted, _));
  EXPECT_TRUE(near_->aborted());
  EXPECT_THAT(near_->failure(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("edge ")));
}

TEST_F(TcpEdgeTest, ASenderWithoutAnythingToSendNoticesToo) {
  Open(4096, {Edge(kCoordinator, kFar, *listener_)}, Key(), kEpoch, kLong);
  ASSERT_OK(near_->AwaitRemote(kLong));
  far_.reset();
  for (int i = 0; i < 600 && !near_->aborted(); ++i) absl::SleepFor(absl::Milliseconds(100));
  EXPECT_THAT(near_->failure(), StatusIs(absl::StatusCode::kUnavailable,
                                         HasSubstr("edge coordinator -> host-b/cpu:0: "
                                                   "the other end closed")));
}

TEST_F(TcpEdgeTest, WhoHasAnotherKeyIsNotLetIn) {
  Open(4096, BothWays(), Key('x'), kEpoch, absl::Milliseconds(500));
  EXPECT_THAT(near_->AwaitRemote(kLong),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not take the connection")));
  EXPECT_THAT(far_->AwaitRemote(kLong),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the other end did not connect")));
}

TEST_F(TcpEdgeTest, AnotherEpochsConnectionIsNotTaken) {
  Open(4096, BothWays(), Key(), kEpoch + 1, absl::Milliseconds(500));
  EXPECT_THAT(near_->AwaitRemote(kLong), StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_THAT(far_->AwaitRemote(kLong), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST_F(TcpEdgeTest, NobodyThereIsSaid) {
  const std::vector<RemoteEdge> edges = {
      {.from = kCoordinator, .to = kFar, .address = "127.0.0.1:1"}};
  near_ =
      Exchange::CreateInProcess({.epoch = kEpoch, .endpoints = {kCoordinator}, .ring_bytes = 4096});
  ASSERT_OK(AddRemoteEdges(kCoordinator, edges, Key(), nullptr, kLong, near_.get()));
  EXPECT_THAT(near_->AwaitRemote(kLong),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("connect to 127.0.0.1:1")));
}

// A connection that comes before its edge is wanted is kept.
TEST_F(TcpEdgeTest, AnEarlyConnectionWaits) {
  const EdgeId id = {Key(), kEpoch, kCoordinator, kFar, EdgeKind::kSteps};
  const auto go_on = [] { return false; };
  std::thread dials([&] {
    EXPECT_THAT(DialEdge(id, {"127.0.0.1", listener_->port()}, kLong, go_on), IsOk());
  });
  absl::SleepFor(kShort);
  EXPECT_THAT(listener_->Await(id, kLong, go_on), IsOk());
  dials.join();
}

// Whoever says nothing, or nonsense, holds nobody up, and is closed.
TEST_F(TcpEdgeTest, NonsenseHoldsNobodyUp) {
  const auto go_on = [] { return false; };
  const TcpAddress address = {"127.0.0.1", listener_->port()};
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK_AND_ASSIGN(UniqueFd socket, ConnectTcp(address, kLong, go_on));
    silent.push_back(std::move(socket));
  }
  ASSERT_OK_AND_ASSIGN(const UniqueFd rude, ConnectTcp(address, kLong, go_on));
  const std::string nonsense(400, 'x');
  ASSERT_OK(SendAll(rude, nonsense.data(), nonsense.size(), kLong, go_on));
  char byte = 0;
  EXPECT_THAT(ReceiveAll(rude, &byte, 1, kLong, go_on),
              StatusIs(absl::StatusCode::kUnavailable, _));
  OpenBothWays(4096);
}

TEST(TcpAddress, IsReadAndSaid) {
  for (const char* good : {"10.0.0.2:7000", "host-b:0", "[::1]:65535"}) {
    ASSERT_OK_AND_ASSIGN(const TcpAddress address, ParseTcpAddress(good));
    EXPECT_EQ(address.text(), good);
  }
  for (const char* bad :
       {"", "host", ":7000", "host:", "host:x", "host:65536", "host:-1", "::1:7", "[]:7"}) {
    EXPECT_THAT(ParseTcpAddress(bad), StatusIs(absl::StatusCode::kInvalidArgument, _)) << bad;
  }
}

TEST(RemoteEdges, AreThoseWithAnEndElsewhere) {
  const std::vector<Op> ops = {{OpKind::kMlp, 0}};
  const Route route = {{"cpu:0", {{OpKind::kEmbedding}}},
                       {"b/cpu:0", ops, {{"b/cpu:0", 1}, {"cpu:0", 1}}},
                       {"b/cpu:1", {{OpKind::kLmHead}}}};
  const ExchangeSpec spec = ExchangeSpec::ForRoute(route, 1, 4096);
  const ExchangeSpec local = LocalPart(spec);
  EXPECT_EQ(local.endpoints, (std::vector<std::string>{kCoordinator, "cpu:0"}));
  EXPECT_EQ(local.edges,
            (std::vector<std::pair<std::string, std::string>>{{kCoordinator, "cpu:0"}}));
  EXPECT_TRUE(local.gathers.empty());
  std::vector<std::string> said;
  for (const RemoteEdge& edge : RemoteEdgesOf(spec)) {
    said.push_back(absl::StrCat(edge.from, " ", edge.to,
                                edge.kind == EdgeKind::kGather ? " rows " : " ",
                                edge.listening_end()));
  }
  EXPECT_EQ(said,
            (std::vector<std::string>{"cpu:0 b/cpu:0 b/cpu:0", "b/cpu:0 cpu:0 b/cpu:0",
                                      "b/cpu:0 b/cpu:1 b/cpu:1", "b/cpu:1 coordinator b/cpu:1",
                                      "b/cpu:0 cpu:0 rows b/cpu:0", "cpu:0 b/cpu:0 rows b/cpu:0"}));
}

}  // namespace
}  // namespace dovetail::transport
