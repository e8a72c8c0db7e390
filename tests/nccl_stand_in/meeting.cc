#include "tests/nccl_stand_in/meeting.h"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace dovetail::nccl_stand_in {
namespace {

std::mutex mutex;
std::map<std::string, UniqueFd>& Listeners() {
  static auto* const listeners = new std::map<std::string, UniqueFd>;
  return *listeners;
}

std::string NameOf(const transport::NcclUniqueId& id) {
  return std::string(id.internal, strnlen(id.internal, sizeof(id.internal)));
}

// In the abstract namespace, whose names begin with a zero byte and go with their sockets.
socklen_t AddressOf(const transport::NcclUniqueId& id, sockaddr_un* address) {
  const std::string name = NameOf(id).substr(0, sizeof(address->sun_path) - 1);
  *address = sockaddr_un{.sun_family = AF_UNIX, .sun_path = {}};
  std::memcpy(address->sun_path + 1, name.data(), name.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

UniqueFd MakeSocket() { return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

}  // namespace

bool MakeMeeting(transport::NcclUniqueId* id) {
  uint64_t random[2];
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) return false;
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "dovetail-nccl-%016llx%016llx",
                static_cast<unsigned long long>(random[0]),
                static_cast<unsigned long long>(random[1]));
  sockaddr_un address;
  const socklen_t length = AddressOf(*id, &address);
  UniqueFd listener = MakeSocket();
  if (!listener.valid() ||
      bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener.get(), 1) != 0) {
    return false;
  }
  const std::lock_guard lock(mutex);
  Listeners().emplace(NameOf(*id), std::move(listener));
  return true;
}

UniqueFd TakeListener(const transport::NcclUniqueId& id) {
  const std::lock_guard lock(mutex);
  const auto found = Listeners().find(NameOf(id));
  if (found == Listeners().end()) return UniqueFd();
  UniqueFd listener = std::move(found->second);
  Listeners().erase(found);
  return listener;
}

UniqueFd ConnectTo(const transport::NcclUniqueId& id) {
  sockaddr_un address;
  const socklen_t length = AddressOf(id, &address);
  UniqueFd connection = MakeSocket();
  if (!connection.valid() ||
      connect(connection.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    return UniqueFd();
  }
  return connection;
}

}  // namespace dovetail::nccl_stand_in
