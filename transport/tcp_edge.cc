#include "transport/tcp_edge.h"

#include <sys/socket.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::transport {
namespace {

// How soon a sender without anything to send notices that the other end has gone.
constexpr absl::Duration kIdle = absl::Seconds(1);
constexpr absl::Duration kLongIdle = absl::Minutes(1);  // of a wait that everything ends
// While an answer may come from either side, of which a thread can wait for one.
constexpr absl::Duration kAnswerSlice = absl::Milliseconds(2);
// A peer that takes no byte for so long is lost; the coordinator notices mostly before.
constexpr absl::Duration kCarryTimeout = absl::Seconds(30);

}  // namespace

absl::StatusOr<std::unique_ptr<TcpEdge>> TcpEdge::Start(TcpEdgeOptions options) {
  DT_CHECK(options.bell != nullptr && options.aborted != nullptr && options.connect != nullptr);
  auto edge = absl::WrapUnique(new TcpEdge(std::move(options)));
  const TcpEdgeOptions& o = edge->options_;
  DT_ASSIGN_OR_RETURN(edge->memory_, MemoryMap::MapAnonymous(sizeof(RingControl) + o.ring_bytes));
  edge->ring_ = {.control = reinterpret_cast<RingControl*>(edge->memory_.data()),
                 .bytes = edge->memory_.data() + sizeof(RingControl),
                 .capacity = o.ring_bytes,
                 .sender_bell = o.sends ? o.bell : &edge->own_bell_,
                 .receiver_bell = o.sends ? &edge->own_bell_ : o.bell,
                 .aborted = o.aborted,
                 .name = o.edge.name()};
  edge->thread_ = std::thread([self = edge.get()] { self->Run(); });
  return edge;
}

TcpEdge::~TcpEdge() {
  stop_.store(true, std::memory_order_release);
  ShmDoorbell(&own_bell_).Ring();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (socket_.valid()) ::shutdown(socket_.get(), SHUT_RDWR);
  }
  thread_.join();
}

void TcpEdge::Run() {
  absl::Status status = Connect();
  if (status.ok()) status = options_.sends ? CarryOut() : CarryIn();
  if (stopped()) return;
  options_.broken(
      absl::UnavailableError(absl::StrCat("edge ", options_.edge.name(), ": ", status.message())));
}

absl::Status TcpEdge::Connect() {
  DT_ASSIGN_OR_RETURN(UniqueFd socket, options_.connect([this] { return stopped(); }));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped()) return absl::AbortedError("stopped");
    socket_ = std::move(socket);
  }
  options_.up();
  return absl::OkStatus();
}

absl::Status TcpEdge::CarryOut() {
  RingSource source(ring_);
  if (options_.has_answer) DT_RETURN_IF_ERROR(HearAnswer(&source));
  while (!stopped()) {
    const absl::Span<const uint8_t> bytes = source.Bytes();
    if (!bytes.empty()) {
      DT_ASSIGN_OR_RETURN(const size_t count, SendSome(socket_, bytes.data(), bytes.size()));
      source.Take(count);
      if (count == 0) WaitWritable(socket_, kIdle);
      continue;
    }
    source.Wait(kIdle);
    // The other end sends nothing any more: what can be read is that it has gone.
    uint8_t byte = 0;
    if (source.Bytes().empty()) DT_RETURN_IF_ERROR(ReceiveSome(socket_, &byte, 1).status());
  }
  return absl::OkStatus();
}

// The offer that is answered is the first message; its sender waits for the answer then.
absl::Status TcpEdge::HearAnswer(RingSource* source) {
  const auto stop = [this] { return stopped(); };
  while (!stopped()) {
    const absl::Span<const uint8_t> bytes = source->Bytes();
    DT_RETURN_IF_ERROR(SendAll(socket_, bytes.data(), bytes.size(), kCarryTimeout, stop));
    source->Take(bytes.size());
    if (!WaitReadable(socket_, kAnswerSlice)) continue;
    uint32_t answer = 0;
    DT_RETURN_IF_ERROR(ReceiveAll(socket_, &answer, sizeof(answer), kCarryTimeout, stop));
    ring_.control->answer.store(answer, std::memory_order_release);
    ShmDoorbell(ring_.sender_bell).Ring();
    break;
  }
  return absl::OkStatus();
}

absl::Status TcpEdge::CarryIn() {
  RingSink sink(ring_);
  while (!stopped()) {
    const bool owes_answer = options_.has_answer && !answered_;
    if (owes_answer) DT_RETURN_IF_ERROR(SendAnswerOnceThere());
    const absl::Span<uint8_t> room = sink.Room();
    if (room.empty()) {
      sink.Wait(kIdle);
      continue;
    }
    DT_ASSIGN_OR_RETURN(const size_t count, ReceiveSome(socket_, room.data(), room.size()));
    if (count > 0) {
      sink.Put(count);
    } else {
      WaitReadable(socket_, owes_answer ? kAnswerSlice : kLongIdle);
    }
  }
  return absl::OkStatus();
}

absl::Status TcpEdge::SendAnswerOnceThere() {
  const uint32_t answer = ring_.control->answer.load(std::memory_order_acquire);
  if (answer == 0) return absl::OkStatus();
  answered_ = true;
  return SendAll(socket_, &answer, sizeof(answer), kCarryTimeout, [this] { return stopped(); });
}

}  // namespace dovetail::transport
