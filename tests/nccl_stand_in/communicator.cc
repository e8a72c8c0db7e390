#include "tests/nccl_stand_in/communicator.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tests/nccl_stand_in/meeting.h"

namespace dovetail::nccl_stand_in {
namespace {

using transport::NcclResult;

// How much a sender is ahead of the receiver, about.
constexpr int kSocketBytes = 256 << 10;
constexpr size_t kChunkBytes = 256 << 10;

// What each rank says first.
struct Hello {
  uint64_t magic;
  uint64_t rank;
};
constexpr uint64_t kMagic = 0x6e63636c2d736974;

}  // namespace

Communicator::Communicator(const transport::NcclUniqueId& id, int num_ranks, int rank)
    : id_(id), alone_(num_ranks == 1), rank_(rank), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  thread_ = std::thread([this] { Run(); });
}

Communicator::~Communicator() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

NcclResult Communicator::state() {
  const std::lock_guard lock(mutex_);
  return state_;
}

const char* Communicator::last_error() {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

NcclResult Communicator::Post(const Operation* operations, size_t count) {
  const std::lock_guard lock(mutex_);
  if (finalizing_ || state_ == transport::kNcclInProgress) {
    last_error_ = "the communicator was used before the previous operation returned ncclSuccess";
    return transport::kNcclInvalidArgument;
  }
  if (state_ != transport::kNcclSuccess) return state_;
  operations_.insert(operations_.end(), operations, operations + count);
  state_ = transport::kNcclInProgress;
  Wake();
  return state_;
}

NcclResult Communicator::Finalize() {
  const std::lock_guard lock(mutex_);
  if (finalizing_ || state_ == transport::kNcclInProgress) return transport::kNcclInvalidArgument;
  if (state_ != transport::kNcclSuccess) return state_;
  finalizing_ = true;
  state_ = transport::kNcclInProgress;
  Wake();
  return state_;
}

void Communicator::Drain() {
  {
    const std::lock_guard lock(mutex_);
    finalizing_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

void Communicator::Wake() const { eventfd_write(wake_.get(), 1); }

void Communicator::Run() {
  NcclResult result = Join();
  if (result == transport::kNcclSuccess) result = Work();
  End(result);
}

NcclResult Communicator::Join() {
  if (alone_) {
    TakeListener(id_);  // nobody comes
    hung_up_ = connected_ = true;
    const std::lock_guard lock(mutex_);
    state_ = transport::kNcclSuccess;
    return transport::kNcclSuccess;
  }
  if (rank_ == 0) {
    const UniqueFd listener = TakeListener(id_);
    if (!listener.valid()) {
      return Failed(transport::kNcclInvalidUsage, "rank 0 is not where the id was made");
    }
    const NcclResult result = WaitReady(listener.get(), POLLIN);
    if (result != transport::kNcclSuccess) return result;
    socket_ = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  } else {
    socket_ = ConnectTo(id_);
  }
  if (!socket_.valid()) {
    return Failed(transport::kNcclRemoteError, "nobody listens where the ranks were to meet");
  }
  setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &kSocketBytes, sizeof(kSocketBytes));
  const Hello own{kMagic, static_cast<uint64_t>(rank_)};
  Hello other{};
  NcclResult result = SendBytes(&own, sizeof(own));
  if (result == transport::kNcclSuccess) result = ReceiveBytes(&other, sizeof(other));
  if (result != transport::kNcclSuccess) return result;
  if (other.magic != kMagic || other.rank == own.rank) {
    return Failed(transport::kNcclInvalidArgument, "two ranks with the same number");
  }
  if (std::getenv("NCCL_STAND_IN_HAS_ONE_GPU") != nullptr) {
    return Failed(transport::kNcclInvalidUsage, "Duplicate GPU detected : rank 0 and rank 1");
  }
  const std::lock_guard lock(mutex_);
  state_ = transport::kNcclSuccess;
  return transport::kNcclSuccess;
}

// Until the communicator is finalized, or fails.
NcclResult Communicator::Work() {
  for (;;) {
    Operation operation{};
    bool found = false;
    {
      const std::lock_guard lock(mutex_);
      TakePosted();
      found = !operations_.empty();
      if (found) operation = operations_.front();
      if (!found && finalizing_) return transport::kNcclSuccess;
    }
    NcclResult result = transport::kNcclSuccess;
    if (!found) {
      result = Idle();
    } else if (!connected_) {
      result = Connect();
    } else if (alone_) {
      result = TransferToItself();
    } else {
      result = Transfer(operation);
    }
    if (result != transport::kNcclSuccess) return result;
  }
}

// Waits for something to do.
NcclResult Communicator::Idle() {
  const Event event = Wait(hung_up_ ? -1 : socket_.get(), POLLRDHUP);
  if (event == Event::kWoken) return transport::kNcclSuccess;
  if (event == Event::kStop) return Failed(transport::kNcclInternalError, "aborted");
  uint8_t byte;
  hung_up_ = recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  if (hung_up_) return transport::kNcclSuccess;
  return Failed(transport::kNcclRemoteError, "the other rank closed the connection");
}

NcclResult Communicator::Connect() {
  uint8_t byte = 0;
  NcclResult result = SendBytes(&byte, 1);
  if (result == transport::kNcclSuccess) result = ReceiveBytes(&byte, 1);
  connected_ = result == transport::kNcclSuccess;
  return result;
}

// Does the first operation of operations_, which was taken.
NcclResult Communicator::Transfer(const Operation& operation) {
  uint64_t bytes = operation.bytes;
  NcclResult result =
      operation.is_send ? SendBytes(&bytes, sizeof(bytes)) : ReceiveBytes(&bytes, sizeof(bytes));
  if (result != transport::kNcclSuccess) return result;
  if (bytes != operation.bytes) {
    return Failed(transport::kNcclInvalidArgument, "a send and its receive differ in length");
  }
  result =
      operation.is_send ? SendBytes(operation.data, bytes) : ReceiveBytes(operation.data, bytes);
  if (result != transport::kNcclSuccess) return result;
  const std::lock_guard lock(mutex_);
  Done(operations_.begin());
  return transport::kNcclSuccess;
}

// The first send and the first receive.
NcclResult Communicator::TransferToItself() {
  const std::lock_guard lock(mutex_);
  const auto find = [this](bool is_send) {
    return std::find_if(operations_.begin(), operations_.end(),
                        [is_send](const Operation& o) { return o.is_send == is_send; });
  };
  const auto send = find(true), receive = find(false);
  if (send == operations_.end() || receive == operations_.end() || send->bytes != receive->bytes) {
    last_error_ = "a rank that is alone posts a receive with each send, as long as it";
    return transport::kNcclInvalidUsage;
  }
  std::memcpy(receive->data, send->data, send->bytes);
  Done(std::max(send, receive));
  Done(std::min(send, receive));
  return transport::kNcclSuccess;
}

void Communicator::Done(std::deque<Operation>::iterator operation) {
  worker::StandInStream* const stream = operation->stream;
  operations_.erase(operation);
  stream->not_done.fetch_sub(1, std::memory_order_release);
}

NcclResult Communicator::SendBytes(const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t sent =
        send(socket_.get(), from, std::min(bytes, kChunkBytes), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      from += sent;
      bytes -= static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      const NcclResult result = WaitReady(socket_.get(), POLLOUT);
      if (result != transport::kNcclSuccess) return result;
    } else if (errno != EINTR) {
      return Failed(transport::kNcclRemoteError, "the other rank closed the connection");
    }
  }
  return transport::kNcclSuccess;
}

NcclResult Communicator::ReceiveBytes(void* data, size_t bytes) {
  auto* to = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(socket_.get(), to, std::min(bytes, kChunkBytes), MSG_DONTWAIT);
    if (got > 0) {
      to += got;
      bytes -= static_cast<size_t>(got);
    } else if (got < 0 && errno == EAGAIN) {
      const NcclResult result = WaitReady(socket_.get(), POLLIN);
      if (result != transport::kNcclSuccess) return result;
    } else if (got == 0 || errno != EINTR) {
      return Failed(transport::kNcclRemoteError, "the other rank closed the connection");
    }
  }
  return transport::kNcclSuccess;
}

NcclResult Communicator::WaitReady(int fd, int16_t events) {
  for (;;) {
    const Event event = Wait(fd, events);
    if (event == Event::kReady) return transport::kNcclSuccess;
    if (event == Event::kStop) return Failed(transport::kNcclInternalError, "aborted");
  }
}

Communicator::Event Communicator::Wait(int fd, int16_t events) {
  pollfd fds[] = {{fd, events, 0}, {wake_.get(), POLLIN, 0}};
  poll(fds, 2, -1);
  if (fds[1].revents != 0) {
    eventfd_t ignored;
    eventfd_read(wake_.get(), &ignored);
    const std::lock_guard lock(mutex_);
    TakePosted();
    return stop_ ? Event::kStop : Event::kWoken;
  }
  return fds[0].revents != 0 ? Event::kReady : Event::kWoken;
}

void Communicator::TakePosted() {
  if (!connected_) return;
  for (Operation& operation : operations_) {
    if (operation.taken) continue;
    operation.stream->not_done.fetch_add(1, std::memory_order_relaxed);
    operation.taken = true;
  }
  if (state_ == transport::kNcclInProgress && !finalizing_) state_ = transport::kNcclSuccess;
}

void Communicator::End(NcclResult result) {
  socket_.reset();
  const std::lock_guard lock(mutex_);
  for (const Operation& operation : operations_) {
    if (operation.taken) operation.stream->not_done.fetch_sub(1, std::memory_order_release);
  }
  operations_.clear();
  state_ = result;
}

NcclResult Communicator::Failed(NcclResult result, const char* why) {
  const std::lock_guard lock(mutex_);
  last_error_ = why;
  return result;
}

}  // namespace dovetail::nccl_stand_in
