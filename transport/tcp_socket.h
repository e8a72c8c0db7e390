// TCP between processes of different hosts: connecting, listening, and moving bytes, so that every
// wait ends when its owner says so.
//
// Sockets do not block; a wait is a poll() in slices, between which `stop` is looked at. Stateless
// functions; a socket may be read by one thread and written by another. Nobody gets SIGPIPE.
#ifndef DOVETAIL_TRANSPORT_TCP_SOCKET_H_
#define DOVETAIL_TRANSPORT_TCP_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/posix.h"

namespace dovetail::transport {

// Whether a wait should end: kAborted is what it returns then. Any thread may make it true.
using StopFn = absl::FunctionRef<bool()>;

// "10.0.0.2:7000", "[::1]:7000", "host-b:7000".
struct TcpAddress {
  std::string host;
  int port = 0;
  std::string text() const;
};
// InvalidArgument: no host, or a port that is not in 0..65535.
absl::StatusOr<TcpAddress> ParseTcpAddress(absl::string_view text);

// kUnavailable names the address and why; kDeadlineExceeded. Names are looked up, which `stop` does
// not end.
absl::StatusOr<UniqueFd> ConnectTcp(const TcpAddress& address, absl::Duration timeout, StopFn stop);
// Port 0: any free one.
absl::StatusOr<UniqueFd> ListenTcp(const TcpAddress& address);
absl::StatusOr<int> PortOf(const UniqueFd& socket);
// The next connection, ready for the functions below; none is waiting: an invalid one.
absl::StatusOr<UniqueFd> AcceptTcp(const UniqueFd& listener);

// What can be moved without waiting: 0 if nothing can. kUnavailable: the connection is over.
absl::StatusOr<size_t> SendSome(const UniqueFd& socket, const void* data, size_t size);
absl::StatusOr<size_t> ReceiveSome(const UniqueFd& socket, void* data, size_t size);
// All of it; kAborted or kDeadlineExceeded as above.
absl::Status SendAll(const UniqueFd& socket, const void* data, size_t size, absl::Duration timeout,
                     StopFn stop);
absl::Status ReceiveAll(const UniqueFd& socket, void* data, size_t size, absl::Duration timeout,
                        StopFn stop);

// Returns true when the socket can be read (written), or is over; false after `timeout`.
bool WaitReadable(const UniqueFd& socket, absl::Duration timeout);
bool WaitWritable(const UniqueFd& socket, absl::Duration timeout);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_TCP_SOCKET_H_
