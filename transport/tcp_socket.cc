#include "transport/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/patience.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

constexpr int kBacklog = 64;
constexpr absl::Duration kSlice = absl::Milliseconds(100);  // how soon a wait notices `stop`
// What was sent and nobody has confirmed for so long ends a connection: its host is gone.
constexpr unsigned kUserTimeoutMs = 15'000;

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

absl::StatusOr<AddressList> LookUp(const TcpAddress& address, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat(address.text(), ": ", ::gai_strerror(error)));
  }
  return AddressList(found, &::freeaddrinfo);
}

UniqueFd MakeSocket(const addrinfo& a) {
  return UniqueFd(
      ::socket(a.ai_family, a.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a.ai_protocol));
}

// Small frames go at once.
void SetOptions(const UniqueFd& socket) {
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs,
               sizeof(kUserTimeoutMs));
}

bool Wait(const UniqueFd& socket, short events, absl::Duration timeout) {
  pollfd entry = {socket.get(), events, 0};
  const auto ms = static_cast<int>(std::clamp<int64_t>(
      absl::ToInt64Milliseconds(timeout + absl::Microseconds(999)), 0, 1 << 30));
  return ::poll(&entry, 1, ms) > 0;
}

absl::Status Over(const char* what) { return absl::UnavailableError(what); }

bool WouldWait(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

// Runs `move`, which returns how many bytes it has moved, until all of them are.
absl::Status MoveAll(const UniqueFd& socket, size_t size, short events, absl::Duration timeout,
                     StopFn stop, absl::FunctionRef<absl::StatusOr<size_t>(size_t done)> move) {
  Patience patience(timeout);
  for (size_t done = 0; done < size;) {
    DT_ASSIGN_OR_RETURN(const size_t count, move(done));
    done += count;
    if (count > 0) continue;
    if (stop()) return absl::AbortedError("stopped");
    if (patience.Exhausted()) return absl::DeadlineExceededError("nothing moved in time");
    Wait(socket, events, std::min(kSlice, patience.UntilNextLook()));
  }
  return absl::OkStatus();
}

// 0, or why the connection that was begun did not come to be.
int ConnectError(const UniqueFd& socket) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

}  // namespace

std::string TcpAddress::text() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port)
                                             : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<TcpAddress> ParseTcpAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  TcpAddress address;
  const bool has_port = colon != absl::string_view::npos &&
                        absl::SimpleAtoi(text.substr(colon + 1), &address.port) &&
                        address.port >= 0 && address.port <= 65535;
  absl::string_view host = has_port ? text.substr(0, colon) : "";
  if (!host.empty() && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != absl::string_view::npos) {
    host = "";  // which colon is the port's?
  }
  if (host.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`", text, "` is not HOST:PORT, such as 10.0.0.2:7000, host-b:7000 or [::1]:7000"));
  }
  address.host = std::string(host);
  return address;
}

absl::StatusOr<UniqueFd> ConnectTcp(const TcpAddress& address, absl::Duration timeout,
                                    StopFn stop) {
  DT_ASSIGN_OR_RETURN(const AddressList list, LookUp(address, 0));
  Patience patience(timeout);
  int error = 0;
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    UniqueFd socket = MakeSocket(*a);
    if (!socket.valid()) return ErrnoStatus(errno, "socket for", address.text());
    SetOptions(socket);
    error = ::connect(socket.get(), a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      while (!Wait(socket, POLLOUT, std::min(kSlice, patience.UntilNextLook()))) {
        if (stop()) return absl::AbortedError("stopped");
        if (patience.Exhausted()) {
          return absl::DeadlineExceededError(absl::StrCat(
              address.text(), " does not answer within ", absl::FormatDuration(timeout)));
        }
      }
      error = ConnectError(socket);
    }
    if (error == 0) return socket;
  }
  return absl::UnavailableError(ErrnoStatus(error, "connect to", address.text()).message());
}

absl::StatusOr<UniqueFd> ListenTcp(const TcpAddress& address) {
  DT_ASSIGN_OR_RETURN(const AddressList list, LookUp(address, AI_PASSIVE));
  const addrinfo& a = *list;
  UniqueFd socket = MakeSocket(a);
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!socket.valid() || ::bind(socket.get(), a.ai_addr, a.ai_addrlen) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    return ErrnoStatus(errno, "listen on", address.text());
  }
  return socket;
}

absl::StatusOr<int> PortOf(const UniqueFd& socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoStatus(errno, "getsockname", "of a socket");
  }
  const in_port_t port = address.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                             : reinterpret_cast<const sockaddr_in&>(address).sin_port;
  return ntohs(port);
}

absl::StatusOr<UniqueFd> AcceptTcp(const UniqueFd& listener) {
  UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) {
    SetOptions(socket);
    return socket;
  }
  if (WouldWait(errno) || errno == ECONNABORTED) return UniqueFd();
  return ErrnoStatus(errno, "accept", "a connection");
}

absl::StatusOr<size_t> SendSome(const UniqueFd& socket, const void* data, size_t size) {
  const ssize_t count = ::send(socket.get(), data, size, MSG_NOSIGNAL);
  if (count >= 0) return static_cast<size_t>(count);
  if (WouldWait(errno)) return 0;
  return absl::UnavailableError(absl::ErrnoToStatus(errno, "the connection broke").message());
}

absl::StatusOr<size_t> ReceiveSome(const UniqueFd& socket, void* data, size_t size) {
  const ssize_t count = ::recv(socket.get(), data, size, 0);
  if (count > 0) return static_cast<size_t>(count);
  if (count == 0) return Over("the other end closed the connection");
  if (WouldWait(errno)) return 0;
  return absl::UnavailableError(absl::ErrnoToStatus(errno, "the connection broke").message());
}

absl::Status SendAll(const UniqueFd& socket, const void* data, size_t size, absl::Duration timeout,
                     StopFn stop) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  return MoveAll(socket, size, POLLOUT, timeout, stop,
                 [&](size_t done) { return SendSome(socket, bytes + done, size - done); });
}

absl::Status ReceiveAll(const UniqueFd& socket, void* data, size_t size, absl::Duration timeout,
                        StopFn stop) {
  auto* bytes = static_cast<uint8_t*>(data);
  return MoveAll(socket, size, POLLIN, timeout, stop,
                 [&](size_t done) { return ReceiveSome(socket, bytes + done, size - done); });
}

bool WaitReadable(const UniqueFd& socket, absl::Duration timeout) {
  return Wait(socket, POLLIN, timeout);
}

bool WaitWritable(const UniqueFd& socket, absl::Duration timeout) {
  return Wait(socket, POLLOUT, timeout);
}

}  // namespace dovetail::transport
