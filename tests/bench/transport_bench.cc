// Hop latency: a message there and one back through two rings, halved. Sizes are rows of
// activations of small models. "us_median" and "us_p99" are of single hops.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/check.h"
#include "benchmark/benchmark.h"
#include "transport/exchange.h"

namespace dovetail::transport {
namespace {

constexpr char kWorker[] = "cpu:0";
constexpr absl::Duration kLong = absl::Seconds(60);

ExchangeSpec ThereAndBack() {
  return ExchangeSpec{.epoch = 1,
                      .endpoints = {kCoordinator, kWorker},
                      .edges = {{kCoordinator, kWorker}, {kWorker, kCoordinator}},
                      .ring_bytes = 1 << 20};
}

class Peer {
 public:
  Peer(Exchange* exchange, const char* own, const char* other)
      : sender_(*exchange->Sender(own, other)), receiver_(*exchange->Receiver(other, own)) {}

  bool Send(const std::vector<uint8_t>& message) {
    const ConstBytes piece = {message.data(), message.size()};
    return sender_->Send({&piece, 1}, kLong).ok();
  }
  bool Receive(std::vector<uint8_t>* message) {
    const absl::StatusOr<size_t> size = receiver_->Begin(kLong);
    return size.ok() && receiver_->Read(message->data(), *size, kLong).ok() &&
           receiver_->End(kLong).ok();
  }
  // Returns every message until the epoch ends.
  void Echo(size_t bytes) {
    std::vector<uint8_t> message(bytes);
    while (Receive(&message) && Send(message)) {
    }
  }

 private:
  std::unique_ptr<TensorSender> sender_;
  std::unique_ptr<TensorReceiver> receiver_;
};

void PingPong(benchmark::State& state, Exchange* exchange, absl::Duration pause) {
  std::vector<uint8_t> message(static_cast<size_t>(state.range(0)), 1);
  std::vector<double> hops_us;
  hops_us.reserve(1 << 20);
  Peer peer(exchange, kCoordinator, kWorker);
  for (auto _ : state) {
    if (pause > absl::ZeroDuration()) std::this_thread::sleep_for(absl::ToChronoNanoseconds(pause));
    const auto begin = std::chrono::steady_clock::now();
    if (!peer.Send(message) || !peer.Receive(&message)) {
      state.SkipWithError("the other end is gone");
      break;
    }
    const std::chrono::duration<double, std::micro> there_and_back =
        std::chrono::steady_clock::now() - begin;
    state.SetIterationTime(there_and_back.count() * 1e-6);
    if (hops_us.size() < hops_us.capacity()) hops_us.push_back(there_and_back.count() / 2);
  }
  if (hops_us.empty()) return;
  std::sort(hops_us.begin(), hops_us.end());
  state.counters["us_median"] = hops_us[hops_us.size() / 2];
  state.counters["us_p99"] = hops_us[hops_us.size() * 99 / 100];
}

void BetweenThreads(benchmark::State& state, absl::Duration pause) {
  const auto exchange = Exchange::CreateInProcess(ThereAndBack());
  std::thread other([&] {
    Peer(exchange.get(), kWorker, kCoordinator).Echo(static_cast<size_t>(state.range(0)));
  });
  PingPong(state, exchange.get(), pause);
  exchange->Abort();
  other.join();
}

void BetweenProcesses(benchmark::State& state, absl::Duration pause) {
  std::string path = std::filesystem::exists("/dev/shm") ? "/dev/shm/dovetail-bench-XXXXXX"
                                                         : "/tmp/dovetail-bench-XXXXXX";
  const int reserved = mkstemp(path.data());
  DT_CHECK(reserved >= 0);
  close(reserved);
  auto exchange = Exchange::Create(path, ThereAndBack());
  DT_CHECK(exchange.ok());
  const pid_t child = fork();
  if (child == 0) {
    auto opened = Exchange::Open(path, 1);
    if (!opened.ok()) _exit(1);
    Peer(opened->get(), kWorker, kCoordinator).Echo(static_cast<size_t>(state.range(0)));
    _exit(0);
  }
  DT_CHECK(child > 0);
  PingPong(state, exchange->get(), pause);
  (*exchange)->Abort();
  waitpid(child, nullptr, 0);
  unlink(path.c_str());
}

// Both ends spin; then with pauses, so that the other end sleeps and has to be woken.
BENCHMARK_CAPTURE(BetweenThreads, spinning, absl::ZeroDuration())
    ->Arg(2304)
    ->Arg(14 << 10)
    ->UseManualTime();
BENCHMARK_CAPTURE(BetweenProcesses, spinning, absl::ZeroDuration())
    ->Arg(2304)
    ->Arg(14 << 10)
    ->UseManualTime();
BENCHMARK_CAPTURE(BetweenProcesses, sleeping, absl::Microseconds(200))
    ->Arg(2304)
    ->Arg(14 << 10)
    ->UseManualTime()
    ->Iterations(2000);

// Rows of a prompt: copying in and out overlaps.
void Throughput(benchmark::State& state) {
  BetweenThreads(state, absl::ZeroDuration());
  state.SetBytesProcessed(2 * state.iterations() * state.range(0));
}
BENCHMARK(Throughput)->Arg(512 * 2304)->Arg(8 << 20)->UseManualTime();

}  // namespace
}  // namespace dovetail::transport
