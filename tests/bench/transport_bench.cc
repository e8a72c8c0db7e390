// Hop latency: a message there and one back through two rings, halved. Sizes are rows of
// activations of small models. "us_median" and "us_p99" are of single hops.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "benchmark/benchmark.h"
#include "transport/exchange.h"
#include "transport/remote_edges.h"

namespace dovetail::transport {
namespace {

constexpr char kWorker[] = "cpu:0";
constexpr char kFarWorker[] = "host-b/cpu:0";
constexpr absl::Duration kLong = absl::Seconds(60);

ExchangeSpec ThereAndBack() {
  return ExchangeSpec{.epoch = 1,
                      .endpoints = {kCoordinator, kWorker},
                      .edges = {{kCoordinator, kWorker}, {kWorker, kCoordinator}},
                      .ring_bytes = 1 << 20};
}

std::vector<RemoteEdge> FarEdges(int port) {
  const std::string address = absl::StrCat("127.0.0.1:", port);
  return {{.from = kCoordinator, .to = kFarWorker, .address = address},
          {.from = kFarWorker, .to = kCoordinator, .address = address}};
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

void PingPong(benchmark::State& state, Exchange* exchange, const char* worker,
              absl::Duration pause) {
  std::vector<uint8_t> message(static_cast<size_t>(state.range(0)), 1);
  std::vector<double> hops_us;
  hops_us.reserve(1 << 20);
  Peer peer(exchange, kCoordinator, worker);
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
  PingPong(state, exchange.get(), kWorker, pause);
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
  PingPong(state, exchange->get(), kWorker, pause);
  (*exchange)->Abort();
  waitpid(child, nullptr, 0);
  unlink(path.c_str());
}

// The worker of another host, here over the loopback: it tells its port, echoes, and ends.
[[noreturn]] void RunFarWorker(int port_pipe, size_t bytes) {
  auto listener = EdgeListener::Start({"127.0.0.1", 0});
  if (!listener.ok()) _exit(1);
  (*listener)->SetKey(std::string(kEdgeKeyBytes, 'k'));
  const int port = (*listener)->port();
  if (write(port_pipe, &port, sizeof(port)) != sizeof(port)) _exit(1);
  const auto exchange = Exchange::CreateInProcess(SpecOfRemoteWorker(kFarWorker, 1, 1 << 20));
  const auto added = AddRemoteEdges(kFarWorker, FarEdges(port), std::string(kEdgeKeyBytes, 'k'),
                                    listener->get(), kLong, exchange.get());
  if (!added.ok() || !exchange->AwaitRemote(kLong).ok()) _exit(1);
  Peer(exchange.get(), kFarWorker, kCoordinator).Echo(bytes);
  _exit(0);
}

void BetweenHosts(benchmark::State& state, absl::Duration pause) {
  int port_pipe[2];
  DT_CHECK(pipe(port_pipe) == 0);
  const pid_t child = fork();
  if (child == 0) RunFarWorker(port_pipe[1], static_cast<size_t>(state.range(0)));
  int port = 0;
  DT_CHECK(child > 0 && read(port_pipe[0], &port, sizeof(port)) == sizeof(port));
  close(port_pipe[0]);
  close(port_pipe[1]);
  auto exchange =
      Exchange::CreateInProcess({.epoch = 1, .endpoints = {kCoordinator}, .ring_bytes = 1 << 20});
  DT_CHECK(AddRemoteEdges(kCoordinator, FarEdges(port), std::string(kEdgeKeyBytes, 'k'), nullptr,
                          kLong, exchange.get())
               .ok());
  DT_CHECK(exchange->AwaitRemote(kLong).ok());
  PingPong(state, exchange.get(), kFarWorker, pause);
  exchange.reset();
  waitpid(child, nullptr, 0);
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

BENCHMARK_CAPTURE(BetweenHosts, over_loopback, absl::ZeroDuration())
    ->Arg(2304)
    ->Arg(14 << 10)
    ->UseManualTime();

// Rows of a prompt: copying in and out overlaps.
void Throughput(benchmark::State& state) {
  BetweenThreads(state, absl::ZeroDuration());
  state.SetBytesProcessed(2 * state.iterations() * state.range(0));
}
BENCHMARK(Throughput)->Arg(512 * 2304)->Arg(8 << 20)->UseManualTime();

void ThroughputBetweenHosts(benchmark::State& state) {
  BetweenHosts(state, absl::ZeroDuration());
  state.SetBytesProcessed(2 * state.iterations() * state.range(0));
}
BENCHMARK(ThroughputBetweenHosts)->Arg(8 << 20)->UseManualTime();

}  // namespace
}  // namespace dovetail::transport
