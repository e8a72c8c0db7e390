// The functions of NCCL that Dovetail uses, for machines without GPUs: ranks are threads or
// processes of one host, memory is the host's, and a stream is a StandInStream.
//
// Two ranks to a communicator, or one that is its own peer, non-blocking, and bytes as the only
// type: what links (worker/device/nccl_links.h) and tools/gpu_check need. Operations of one group
// are done one after another.
#include <new>
#include <utility>
#include <vector>

#include "tests/nccl_stand_in/communicator.h"
#include "tests/nccl_stand_in/meeting.h"

namespace dovetail::nccl_stand_in {
namespace {

using transport::NcclCommHandle;
using transport::NcclConfig;
using transport::NcclDataType;
using transport::NcclResult;
using transport::NcclUniqueId;

constexpr int kMostRanks = 2;

struct Posted {
  Communicator* comm;
  Operation operation;
};
thread_local int group_depth = 0;
thread_local std::vector<Posted> group;

Communicator* Of(NcclCommHandle comm) { return reinterpret_cast<Communicator*>(comm); }

NcclResult PostGroup() {
  std::vector<Posted> left = std::exchange(group, {});
  NcclResult result = transport::kNcclSuccess;
  while (!left.empty()) {
    Communicator* const comm = left.front().comm;
    std::vector<Operation> operations;
    std::vector<Posted> others;
    for (const Posted& posted : left) {
      if (posted.comm == comm) {
        operations.push_back(posted.operation);
      } else {
        others.push_back(posted);
      }
    }
    const NcclResult one = comm->Post(operations.data(), operations.size());
    if (result == transport::kNcclSuccess || one != transport::kNcclInProgress) result = one;
    left = std::move(others);
  }
  return result;
}

NcclResult Post(NcclCommHandle handle, bool is_send, void* data, size_t count, NcclDataType type,
                int peer, void* stream) {
  Communicator* const comm = Of(handle);
  if (comm == nullptr || stream == nullptr || (data == nullptr && count > 0) ||
      type != transport::kNcclUint8 || peer != comm->peer()) {
    return transport::kNcclInvalidArgument;
  }
  group.push_back({comm,
                   {.is_send = is_send,
                    .data = static_cast<uint8_t*>(data),
                    .bytes = count,
                    .stream = static_cast<worker::StandInStream*>(stream)}});
  return group_depth > 0 ? transport::kNcclSuccess : PostGroup();
}

}  // namespace

extern "C" {

NcclResult ncclGetVersion(int* version) {
  if (version == nullptr) return transport::kNcclInvalidArgument;
  *version = transport::kNcclOldestVersion;
  return transport::kNcclSuccess;
}

NcclResult ncclGetUniqueId(NcclUniqueId* id) {
  if (id == nullptr) return transport::kNcclInvalidArgument;
  return MakeMeeting(id) ? transport::kNcclSuccess : transport::kNcclSystemError;
}

NcclResult ncclCommInitRankConfig(NcclCommHandle* comm, int num_ranks, NcclUniqueId id, int rank,
                                  NcclConfig* config) {
  const NcclConfig wanted;
  if (comm == nullptr || num_ranks < 1 || num_ranks > kMostRanks || rank < 0 || rank >= num_ranks ||
      config == nullptr || config->size < wanted.size || config->magic != wanted.magic ||
      config->version < wanted.version || config->blocking != 0) {
    return transport::kNcclInvalidArgument;
  }
  auto* const made = new (std::nothrow) Communicator(id, num_ranks, rank);
  if (made == nullptr) return transport::kNcclSystemError;
  *comm = reinterpret_cast<NcclCommHandle>(made);
  return transport::kNcclInProgress;
}

NcclResult ncclCommGetAsyncError(NcclCommHandle comm, NcclResult* error) {
  if (comm == nullptr || error == nullptr) return transport::kNcclInvalidArgument;
  *error = Of(comm)->state();
  return transport::kNcclSuccess;
}

NcclResult ncclCommFinalize(NcclCommHandle comm) {
  return comm == nullptr ? transport::kNcclInvalidArgument : Of(comm)->Finalize();
}

NcclResult ncclCommDestroy(NcclCommHandle comm) {
  if (comm == nullptr) return transport::kNcclSuccess;
  Of(comm)->Drain();
  delete Of(comm);
  return transport::kNcclSuccess;
}

NcclResult ncclCommAbort(NcclCommHandle comm) {
  delete Of(comm);
  return transport::kNcclSuccess;
}

NcclResult ncclSend(const void* from, size_t count, NcclDataType type, int peer,
                    NcclCommHandle comm, void* stream) {
  return Post(comm, /*is_send=*/true, const_cast<void*>(from), count, type, peer, stream);
}

NcclResult ncclRecv(void* to, size_t count, NcclDataType type, int peer, NcclCommHandle comm,
                    void* stream) {
  return Post(comm, /*is_send=*/false, to, count, type, peer, stream);
}

NcclResult ncclGroupStart() {
  ++group_depth;
  return transport::kNcclSuccess;
}

NcclResult ncclGroupEnd() {
  if (group_depth == 0) return transport::kNcclInvalidUsage;
  return --group_depth > 0 ? transport::kNcclSuccess : PostGroup();
}

const char* ncclGetErrorString(NcclResult result) {
  switch (result) {
    case transport::kNcclSuccess:
      return "no error";
    case transport::kNcclUnhandledCudaError:
      return "unhandled cuda error";
    case transport::kNcclSystemError:
      return "unhandled system error";
    case transport::kNcclInternalError:
      return "internal error";
    case transport::kNcclInvalidArgument:
      return "invalid argument";
    case transport::kNcclInvalidUsage:
      return "invalid usage";
    case transport::kNcclRemoteError:
      return "remote process exited or there was a network error";
    case transport::kNcclInProgress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

const char* ncclGetLastError(NcclCommHandle comm) {
  return comm == nullptr ? "" : Of(comm)->last_error();
}

}  // extern "C"

}  // namespace dovetail::nccl_stand_in
