#include "transport/edge_listener.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/cluster_key.h"
#include "base/log.h"
#include "base/patience.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr uint64_t kHelloMagic = 0x454744454c565444;  // "DTVLEDGE"
constexpr uint32_t kHelloVersion = 1;
constexpr uint8_t kWanted = 1;
constexpr size_t kNameBytes = kMaxEdgeName + 1;
constexpr size_t kMostCallers = 64;
constexpr size_t kMostArrived = 4096;
constexpr absl::Duration kHearTimeout = absl::Seconds(5);
constexpr absl::Duration kKeepTimeout = absl::Minutes(1);
constexpr absl::Duration kSlice = absl::Milliseconds(100);

// What whoever connects sends first.
struct EdgeHello {
  uint64_t magic;
  uint32_t version;
  uint32_t kind;  // EdgeKind
  uint64_t epoch;
  char key[kEdgeKeyBytes];
  char from[kNameBytes];  // with a final zero
  char to[kNameBytes];
};
static_assert(sizeof(EdgeHello) == 184);

EdgeHello HelloOf(const EdgeId& edge) {
  DT_CHECK_EQ(edge.key.size(), kEdgeKeyBytes);
  DT_CHECK(edge.from.size() < kNameBytes && edge.to.size() < kNameBytes);
  EdgeHello hello = {};
  hello.magic = kHelloMagic;
  hello.version = kHelloVersion;
  hello.kind = static_cast<uint32_t>(edge.kind);
  hello.epoch = edge.epoch;
  std::memcpy(hello.key, edge.key.data(), kEdgeKeyBytes);
  std::memcpy(hello.from, edge.from.data(), edge.from.size());
  std::memcpy(hello.to, edge.to.data(), edge.to.size());
  return hello;
}

// What is wrong with it; "": nothing, and *edge is what it says.
std::string ReadHello(const std::string& bytes, const std::string& key, EdgeId* edge) {
  EdgeHello hello;
  std::memcpy(&hello, bytes.data(), sizeof(hello));
  if (hello.magic != kHelloMagic) return "it does not speak as a process of Dovetail";
  if (hello.version != kHelloVersion) return "it is of another release";
  if (!EqualSecrets({hello.key, kEdgeKeyBytes}, key)) return "it has not the key of this job";
  const bool ended = std::memchr(hello.from, 0, kNameBytes) != nullptr &&
                     std::memchr(hello.to, 0, kNameBytes) != nullptr;
  if (!ended || hello.kind > static_cast<uint32_t>(EdgeKind::kGather)) return "it is damaged";
  *edge = {key, hello.epoch, hello.from, hello.to, static_cast<EdgeKind>(hello.kind)};
  return "";
}

}  // namespace

std::string EdgeId::name() const {
  return absl::StrCat(from, " -> ", to, kind == EdgeKind::kGather ? " (rows)" : "");
}

absl::StatusOr<UniqueFd> DialEdge(const EdgeId& edge, const TcpAddress& address,
                                  absl::Duration timeout, StopFn stop) {
  DT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTcp(address, timeout, stop));
  const EdgeHello hello = HelloOf(edge);
  DT_RETURN_IF_ERROR(SendAll(socket, &hello, sizeof(hello), timeout, stop));
  uint8_t answer = 0;
  const absl::Status heard = ReceiveAll(socket, &answer, 1, timeout, stop);
  if (absl::IsAborted(heard)) return heard;
  if (!heard.ok() || answer != kWanted) {
    return absl::UnavailableError(
        absl::StrCat(address.text(), " does not take the connection: ",
                     heard.ok() ? "it is not a worker of Dovetail" : heard.message()));
  }
  return socket;
}

absl::StatusOr<std::unique_ptr<EdgeListener>> EdgeListener::Start(const TcpAddress& address) {
  auto listener = absl::WrapUnique(new EdgeListener());
  DT_ASSIGN_OR_RETURN(listener->listener_, ListenTcp(address));
  DT_ASSIGN_OR_RETURN(listener->port_, PortOf(listener->listener_));
  listener->wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!listener->wake_.valid()) return ErrnoStatus(errno, "eventfd", "for a listener");
  listener->thread_ = std::thread([self = listener.get()] { self->Run(); });
  return listener;
}

EdgeListener::~EdgeListener() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  DT_CHECK(::write(wake_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void EdgeListener::SetKey(const std::string& key) {
  DT_CHECK_EQ(key.size(), kEdgeKeyBytes);
  std::lock_guard<std::mutex> lock(mutex_);
  key_ = key;
}

absl::StatusOr<UniqueFd> EdgeListener::Await(const EdgeId& edge, absl::Duration timeout,
                                             StopFn stop) {
  Patience patience(timeout);
  UniqueFd socket;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    for (socket = TakeLocked(edge); !socket.valid(); socket = TakeLocked(edge)) {
      if (stop()) return absl::AbortedError("stopped");
      if (patience.Exhausted()) {
        return absl::DeadlineExceededError(
            absl::StrCat("the other end did not connect within ", absl::FormatDuration(timeout)));
      }
      arrival_.wait_for(lock,
                        absl::ToChronoNanoseconds(std::min(kSlice, patience.UntilNextLook())));
    }
  }
  DT_RETURN_IF_ERROR(SendAll(socket, &kWanted, 1, timeout, stop));
  return socket;
}

UniqueFd EdgeListener::TakeLocked(const EdgeId& edge) {
  UniqueFd latest;  // who dialled again has given up the one before
  for (Arrived& a : arrived_) {
    if (a.edge == edge) latest = std::move(a.socket);
  }
  arrived_.remove_if([&](const Arrived& a) { return a.edge == edge; });
  return latest;
}

void EdgeListener::Run() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign({{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
    for (const Caller& caller : callers_) polled.push_back({caller.socket.get(), POLLIN, 0});
    const bool waiting = !callers_.empty() || [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      return !arrived_.empty();
    }();
    const auto ms = static_cast<int>(absl::ToInt64Milliseconds(absl::Seconds(1)));
    if (::poll(polled.data(), polled.size(), waiting ? ms : -1) < 0 && errno != EINTR) {
      LogError("a listener cannot poll");
      return;
    }
    if (polled[0].revents != 0) return;
    size_t i = 2;
    for (auto caller = callers_.begin(); caller != callers_.end();) {
      const bool spoke = polled[i++].revents != 0;
      caller = spoke && !Hear(&*caller) ? callers_.erase(caller) : std::next(caller);
    }
    if (polled[1].revents != 0) Accept();
    Forget(absl::Now());
  }
}

void EdgeListener::Accept() {
  absl::StatusOr<UniqueFd> socket = AcceptTcp(listener_);
  if (!socket.ok()) {
    LogWarn(socket.status().message());
    ::usleep(10'000);  // without descriptors poll() would return at once, again and again
    return;
  }
  if (!socket->valid()) return;
  if (callers_.size() == kMostCallers) callers_.pop_front();
  callers_.push_back({*std::move(socket), "", absl::Now()});
}

bool EdgeListener::Hear(Caller* caller) {
  char bytes[sizeof(EdgeHello)];
  const absl::StatusOr<size_t> count =
      ReceiveSome(caller->socket, bytes, sizeof(EdgeHello) - caller->said.size());
  if (!count.ok()) return false;
  caller->said.append(bytes, *count);
  if (caller->said.size() < sizeof(EdgeHello)) return true;
  std::lock_guard<std::mutex> lock(mutex_);
  EdgeId edge;
  const std::string problem = ReadHello(caller->said, key_, &edge);
  if (!problem.empty()) {
    LogWarn(absl::StrCat("refused a connection: ", problem));
  } else if (arrived_.size() < kMostArrived) {
    arrived_.push_back({std::move(edge), std::move(caller->socket), absl::Now()});
    arrival_.notify_all();
  }
  return false;
}

void EdgeListener::Forget(absl::Time now) {
  callers_.remove_if([now](const Caller& c) { return now - c.since > kHearTimeout; });
  std::lock_guard<std::mutex> lock(mutex_);
  arrived_.remove_if([now](const Arrived& a) { return now - a.since > kKeepTimeout; });
}

}  // namespace dovetail::transport
