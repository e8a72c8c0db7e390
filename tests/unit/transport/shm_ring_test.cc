#include "transport/shm_ring.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "transport/exchange.h"

namespace dovetail::transport {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);
constexpr absl::Duration kShort = absl::Milliseconds(20);
constexpr char kWorker[] = "cpu:0";

ExchangeSpec OneEdge(uint64_t ring_bytes) {
  return ExchangeSpec{.epoch = 1,
                      .endpoints = {kCoordinator, kWorker},
                      .edges = {{kCoordinator, kWorker}},
                      .ring_bytes = ring_bytes};
}

struct Ends {
  std::unique_ptr<Exchange> exchange;
  std::unique_ptr<TensorSender> sender;
  std::unique_ptr<TensorReceiver> receiver;
};

Ends MakeEnds(uint64_t ring_bytes) {
  Ends ends;
  ends.exchange = Exchange::CreateInProcess(OneEdge(ring_bytes));
  ends.sender = *ends.exchange->Sender(kCoordinator, kWorker);
  ends.receiver = *ends.exchange->Receiver(kCoordinator, kWorker);
  return ends;
}

// Messages of random sizes and content, the same on both ends because both know the seed.
class Script {
 public:
  Script(uint64_t seed, uint64_t max_bytes) : random_(seed), max_bytes_(max_bytes) {}
  std::vector<uint8_t> Next() {
    // Short ones often, long ones sometimes.
    const uint64_t limit = random_() % 4 == 0 ? max_bytes_ : 64;
    std::vector<uint8_t> message(random_() % (limit + 1));
    uint64_t state = random_();
    for (uint8_t& byte : message) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<uint8_t>(state >> 56);
    }
    return message;
  }
  // Cuts `size` in up to five pieces.
  std::vector<size_t> Cut(size_t size) {
    std::vector<size_t> cuts = {0};
    for (int i = 0; i < 4; ++i) cuts.push_back(size == 0 ? 0 : random_() % (size + 1));
    cuts.push_back(size);
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  }

 private:
  std::mt19937_64 random_;
  uint64_t max_bytes_;
};

// Some messages have pieces that come later.
absl::Status SendPieces(TensorSender& sender, absl::Span<const ConstBytes> pieces, bool in_two) {
  if (!in_two) return sender.Send(pieces, kLong);
  const auto rest = pieces.subspan(2);
  size_t rest_bytes = 0;
  for (const ConstBytes& piece : rest) rest_bytes += piece.size;
  const absl::Status begun = sender.SendBegin(pieces.first(2), rest_bytes, kLong);
  return begun.ok() ? sender.SendRest(rest, kLong) : begun;
}

absl::Status SendAll(TensorSender& sender, uint64_t seed, uint64_t max_bytes, int count) {
  Script script(seed, max_bytes);
  Script cutter(seed + 1, 0);
  for (int i = 0; i < count; ++i) {
    const std::vector<uint8_t> message = script.Next();
    const std::vector<size_t> cuts = cutter.Cut(message.size());
    std::vector<ConstBytes> pieces;
    for (size_t c = 1; c < cuts.size(); ++c) {
      pieces.push_back({message.data() + cuts[c - 1], cuts[c] - cuts[c - 1]});
    }
    if (absl::Status sent = SendPieces(sender, pieces, i % 3 == 0); !sent.ok()) return sent;
  }
  return absl::OkStatus();
}

// Reads every message in pieces of its own; leaves the tail of some to End().
absl::Status ReceiveAll(TensorReceiver& receiver, uint64_t seed, uint64_t max_bytes, int count) {
  Script script(seed, max_bytes);
  Script cutter(seed + 2, 0);
  for (int i = 0; i < count; ++i) {
    const std::vector<uint8_t> expected = script.Next();
    absl::StatusOr<size_t> size = receiver.Begin(kLong);
    if (!size.ok()) return size.status();
    if (*size != expected.size()) return absl::InternalError("size differs");
    const std::vector<size_t> cuts = cutter.Cut(*size);
    const size_t last = i % 5 == 4 ? cuts.size() - 1 : cuts.size();
    for (size_t c = 1; c < last; ++c) {
      std::vector<uint8_t> piece(cuts[c] - cuts[c - 1]);
      absl::Status read = receiver.Read(piece.data(), piece.size(), kLong);
      if (!read.ok()) return read;
      if (!std::equal(piece.begin(), piece.end(), expected.begin() + cuts[c - 1])) {
        return absl::InternalError(absl::StrCat("content of message ", i, " differs"));
      }
    }
    if (absl::Status ended = receiver.End(kLong); !ended.ok()) return ended;
  }
  return absl::OkStatus();
}

class ShmRingSizes : public ::testing::TestWithParam<uint64_t> {};

TEST_P(ShmRingSizes, CarriesMessagesBetweenThreads) {
  const uint64_t seed = testing::TestSeed();
  const uint64_t ring_bytes = GetParam();
  const uint64_t max_bytes = 3 * ring_bytes + 5;
  const int count = ring_bytes > 100000 ? 60 : 2000;
  Ends ends = MakeEnds(ring_bytes);
  absl::Status sent;
  std::thread sending([&] { sent = SendAll(*ends.sender, seed, max_bytes, count); });
  EXPECT_OK(ReceiveAll(*ends.receiver, seed, max_bytes, count));
  sending.join();
  EXPECT_OK(sent);
  EXPECT_FALSE(ends.receiver->Ready());
}

TEST_P(ShmRingSizes, CarriesMessagesBetweenProcesses) {
  const uint64_t seed = testing::TestSeed();
  const uint64_t ring_bytes = GetParam();
  const uint64_t max_bytes = 3 * ring_bytes + 5;
  const int count = ring_bytes > 100000 ? 40 : 1000;
  const testing::TempDir dir;
  const std::string path = dir.File("exchange-1");
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<Exchange> exchange,
                       Exchange::Create(path, OneEdge(ring_bytes)));
  const pid_t child = fork();
  if (child == 0) {
    // The child finds the file by name and shares nothing else.
    absl::StatusOr<std::unique_ptr<Exchange>> opened = Exchange::Open(path, 1);
    if (!opened.ok()) _exit(2);
    auto sender = (*opened)->Sender(kCoordinator, kWorker);
    if (!sender.ok()) _exit(3);
    _exit(SendAll(**sender, seed, max_bytes, count).ok() ? 0 : 4);
  }
  ASSERT_GT(child, 0);
  ASSERT_OK_AND_ASSIGN(auto receiver, exchange->Receiver(kCoordinator, kWorker));
  EXPECT_OK(ReceiveAll(*receiver, seed, max_bytes, count));
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << state;
}

INSTANTIATE_TEST_SUITE_P(Bytes, ShmRingSizes, ::testing::Values(64, 1000, 65536, 1 << 20));

absl::Status SendBytes(TensorSender& sender, size_t size, absl::Duration timeout) {
  const std::vector<uint8_t> message(size, 7);
  const ConstBytes piece = {message.data(), message.size()};
  return sender.Send({&piece, 1}, timeout);
}

TEST(ShmRing, ReadyTellsWithoutWaiting) {
  Ends ends = MakeEnds(4096);
  EXPECT_FALSE(ends.receiver->Ready());
  ASSERT_OK(SendBytes(*ends.sender, 0, kLong));
  EXPECT_TRUE(ends.receiver->Ready());
  ASSERT_OK_AND_ASSIGN(const size_t size, ends.receiver->Begin(absl::ZeroDuration()));
  EXPECT_EQ(size, 0u);
  ASSERT_OK(ends.receiver->End(absl::ZeroDuration()));
  EXPECT_FALSE(ends.receiver->Ready());
}

TEST(ShmRing, WhatComesLaterKeepsNobodyFromReadingTheRest) {
  Ends ends = MakeEnds(4096);
  uint8_t sent[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  uint8_t got[10] = {};
  const ConstBytes first = {sent, 6}, rest = {sent + 6, 4};
  ASSERT_OK(ends.sender->SendBegin({&first, 1}, rest.size, kLong));
  ASSERT_TRUE(ends.receiver->Ready());
  ASSERT_OK_AND_ASSIGN(const size_t size, ends.receiver->Begin(absl::ZeroDuration()));
  EXPECT_EQ(size, 10u);
  ASSERT_OK(ends.receiver->Read(got, 6, absl::ZeroDuration()));
  ASSERT_OK(ends.sender->SendRest({&rest, 1}, kLong));
  ASSERT_OK(ends.receiver->Read(got + 6, 4, absl::ZeroDuration()));
  EXPECT_TRUE(std::equal(sent, sent + 10, got));
  ASSERT_OK(ends.receiver->End(absl::ZeroDuration()));
  ASSERT_OK(SendBytes(*ends.sender, 3, kLong));
  ASSERT_OK_AND_ASSIGN(const size_t next, ends.receiver->Begin(absl::ZeroDuration()));
  EXPECT_EQ(next, 3u);
}

TEST(ShmRing, RefusesToReadBeyondTheMessage) {
  Ends ends = MakeEnds(4096);
  ASSERT_OK(SendBytes(*ends.sender, 10, kLong));
  ASSERT_OK(SendBytes(*ends.sender, 3, kLong));
  uint8_t buffer[64];
  ASSERT_OK(ends.receiver->Begin(kLong));
  ASSERT_OK(ends.receiver->Read(buffer, 4, kLong));
  EXPECT_THAT(ends.receiver->Read(buffer, 7, kLong),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has 6 left")));
  ASSERT_OK(ends.receiver->End(kLong));
  ASSERT_OK_AND_ASSIGN(const size_t size, ends.receiver->Begin(kLong));
  EXPECT_EQ(size, 3u);
}

TEST(ShmRing, ReceiverGivesUpAtItsDeadline) {
  Ends ends = MakeEnds(4096);
  EXPECT_THAT(ends.receiver->Begin(kShort),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("coordinator -> cpu:0")));
  // Having waited in vain for a message does no harm.
  ASSERT_OK(SendBytes(*ends.sender, 5, kLong));
  EXPECT_OK(ends.receiver->Begin(kShort));
}

TEST(ShmRing, SenderGivesUpAtItsDeadlineAndStaysBroken) {
  Ends ends = MakeEnds(4096);
  EXPECT_THAT(SendBytes(*ends.sender, 10000, kShort),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("made no room")));
  EXPECT_THAT(SendBytes(*ends.sender, 1, kShort),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in the middle")));
  // The other end sees a message that never ends.
  std::vector<uint8_t> buffer(10000);
  ASSERT_OK(ends.receiver->Begin(kShort));
  EXPECT_THAT(ends.receiver->Read(buffer.data(), buffer.size(), kShort),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("nothing arrived")));
  EXPECT_THAT(ends.receiver->End(kShort),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in the middle")));
}

TEST(ShmRing, AbortWakesAWaitingReceiver) {
  Ends ends = MakeEnds(4096);
  absl::Status received;
  std::thread receiving([&] { received = ends.receiver->Begin(kLong).status(); });
  absl::SleepFor(kShort);
  const absl::Time begin = absl::Now();
  ends.exchange->Abort();
  receiving.join();
  EXPECT_LT(absl::Now() - begin, kLong / 2);
  EXPECT_THAT(received, StatusIs(absl::StatusCode::kAborted, HasSubstr("epoch ended")));
  EXPECT_TRUE(ends.receiver->Ready());
  EXPECT_THAT(ends.receiver->Begin(kLong), StatusIs(absl::StatusCode::kAborted, HasSubstr("")));
}

TEST(ShmRing, AbortWakesAWaitingSender) {
  Ends ends = MakeEnds(4096);
  absl::Status sent;
  std::thread sending([&] { sent = SendBytes(*ends.sender, 10000, kLong); });
  absl::SleepFor(kShort);
  const absl::Time begin = absl::Now();
  ends.exchange->Abort();
  sending.join();
  EXPECT_LT(absl::Now() - begin, kLong / 2);
  EXPECT_THAT(sent, StatusIs(absl::StatusCode::kAborted, HasSubstr("epoch ended")));
  EXPECT_THAT(SendBytes(*ends.sender, 1, kLong),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("epoch ended")));
}

TEST(ShmRing, AbortInTheMiddleOfAMessage) {
  Ends ends = MakeEnds(4096);
  ASSERT_OK(SendBytes(*ends.sender, 100, kLong));
  uint8_t buffer[100];
  ASSERT_OK(ends.receiver->Begin(kLong));
  ends.exchange->Abort();
  EXPECT_THAT(ends.receiver->Read(buffer, 100, kLong),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("")));
  EXPECT_THAT(ends.receiver->End(kLong), StatusIs(absl::StatusCode::kAborted, HasSubstr("")));
  EXPECT_THAT(ends.receiver->Begin(kLong), StatusIs(absl::StatusCode::kAborted, HasSubstr("")));
}

// A ring over plain memory, so that a test can play a peer that writes nonsense.
struct BareRing {
  RingControl control;
  std::vector<uint8_t> bytes = std::vector<uint8_t>(64);
  DoorbellState bells[2];
  std::atomic<uint32_t> aborted{0};
  RingView view() {
    return {&control, bytes.data(), bytes.size(), &bells[0], &bells[1], &aborted, "a -> b"};
  }
};

TEST(ShmRing, NoticesANonsensicalHead) {
  for (const uint64_t head : {uint64_t{9}, uint64_t{1000}, ~uint64_t{0} - 99}) {
    BareRing ring;
    ShmRingSender sender(ring.view());
    ASSERT_OK(SendBytes(sender, 0, kShort));
    ring.control.head.store(head);
    EXPECT_THAT(SendBytes(sender, 100, kShort),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("ring a -> b is damaged")))
        << head;
  }
}

TEST(ShmRing, NoticesANonsensicalTail) {
  for (const uint64_t tail : {uint64_t{65}, ~uint64_t{0} - 7}) {
    BareRing ring;
    ShmRingReceiver receiver(ring.view());
    ring.control.tail.store(tail);
    EXPECT_THAT(receiver.Begin(kShort),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("ring a -> b is damaged")))
        << tail;
  }
}

TEST(ShmRing, CountersMayWrap) {
  BareRing ring;
  ring.control.head.store(~uint64_t{0} - 40);
  ring.control.tail.store(~uint64_t{0} - 40);
  ShmRingSender sender(ring.view());
  ShmRingReceiver receiver(ring.view());
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(SendBytes(sender, 20, kShort));
    ASSERT_OK_AND_ASSIGN(const size_t size, receiver.Begin(kShort));
    EXPECT_EQ(size, 20u);
    ASSERT_OK(receiver.End(kShort));
  }
}

absl::Duration ThreadCpuTime() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
}

TEST(ShmRing, WaitingUsesNoCpu) {
  Ends ends = MakeEnds(4096);
  const absl::Duration waited = absl::Milliseconds(300);
  const absl::Duration before_receiving = ThreadCpuTime();
  EXPECT_FALSE(ends.receiver->Begin(waited).ok());
  EXPECT_LT(ThreadCpuTime() - before_receiving, 0.05 * waited);
  const absl::Duration before_sending = ThreadCpuTime();
  EXPECT_FALSE(SendBytes(*ends.sender, 10000, waited).ok());
  EXPECT_LT(ThreadCpuTime() - before_sending, 0.05 * waited);
}

}  // namespace
}  // namespace dovetail::transport
