// Communicator: what the stand-in has behind an ncclComm_t: one of two ranks, which may be in
// different processes, and a thread that passes on what is posted, in order, over a socket.
//
// Like NCCL's non-blocking ones: a call starts something and returns; until state() is success
// again nothing else may be posted. An operation is taken when its stream counts it; the first one
// is taken when the other rank has posted one too. A send is done when the socket has its bytes.
//
// Two ranks are refused where NCCL_STAND_IN_HAS_ONE_GPU is set, as NCCL refuses them on one GPU. A
// rank that is alone in its communicator sends to itself: a group has a receive for each send.
//
// A rank that is gone, killed or in order, closes its socket: the other's state becomes
// kNcclRemoteError, unless there are still bytes to be received, and its streams are empty. All
// methods are called by one thread.
#ifndef DOVETAIL_TESTS_NCCL_STAND_IN_COMMUNICATOR_H_
#define DOVETAIL_TESTS_NCCL_STAND_IN_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "base/posix.h"
#include "transport/nccl_abi.h"
#include "worker/device/stand_in_stream.h"

namespace dovetail::nccl_stand_in {

struct Operation {
  bool is_send;
  uint8_t* data;  // is read only, if it is a send
  size_t bytes;
  worker::StandInStream* stream;
  bool taken = false;
};

class Communicator {
 public:
  // `num_ranks`: 1 or 2.
  Communicator(const transport::NcclUniqueId& id, int num_ranks, int rank);
  // Drops what is not done.
  ~Communicator();

  int peer() const { return alone_ ? rank_ : 1 - rank_; }
  transport::NcclResult state();
  const char* last_error();  // "" if there was none; remains valid
  // One group. What ncclSend returns.
  transport::NcclResult Post(const Operation* operations, size_t count);
  transport::NcclResult Finalize();
  // Waits until all that was posted is done, or has failed.
  void Drain();

 private:
  enum class Event { kReady, kWoken, kStop };
  // Of the thread. Each returns kNcclSuccess, or why the communicator ends.
  void Run();
  transport::NcclResult Join();
  transport::NcclResult Work();
  transport::NcclResult Idle();
  transport::NcclResult Connect();
  transport::NcclResult Transfer(const Operation& operation);
  transport::NcclResult TransferToItself();
  transport::NcclResult SendBytes(const void* data, size_t bytes);
  transport::NcclResult ReceiveBytes(void* data, size_t bytes);
  // Until `fd` is ready for `events`, what is posted is taken.
  transport::NcclResult WaitReady(int fd, int16_t events);
  Event Wait(int fd, int16_t events);
  void TakePosted();                           // requires mutex_
  void Done(std::deque<Operation>::iterator);  // likewise
  void End(transport::NcclResult result);
  transport::NcclResult Failed(transport::NcclResult result, const char* why);

  void Wake() const;

  const transport::NcclUniqueId id_;
  const bool alone_;
  const int rank_;
  const UniqueFd wake_;

  std::mutex mutex_;  // for what follows
  transport::NcclResult state_ = transport::kNcclInProgress;
  const char* last_error_ = "";
  std::deque<Operation> operations_;
  bool finalizing_ = false;
  bool stop_ = false;

  // Of the thread.
  UniqueFd socket_;
  bool connected_ = false;  // both ranks have posted something
  bool hung_up_ = false;    // nothing is to come but what is there

  std::thread thread_;
};

}  // namespace dovetail::nccl_stand_in

#endif  // DOVETAIL_TESTS_NCCL_STAND_IN_COMMUNICATOR_H_
