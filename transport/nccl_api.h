// NcclApi: the functions of NCCL that are used, from the library that this process finds when it
// first needs one. Nothing links NCCL: a machine without GPUs runs the same program.
//
// The library is libnccl.so.2, or the file that DOVETAIL_NCCL_LIBRARY names. It stays open for as
// long as the process lives. What each function does is NCCL's to say (nccl.h).
#ifndef DOVETAIL_TRANSPORT_NCCL_API_H_
#define DOVETAIL_TRANSPORT_NCCL_API_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "transport/nccl_abi.h"

namespace dovetail::transport {

struct NcclApi {
  int version = 0;  // 22304 is 2.23.4

  NcclResult (*GetVersion)(int* version) = nullptr;
  NcclResult (*GetUniqueId)(NcclUniqueId* id) = nullptr;
  NcclResult (*CommInitRankConfig)(NcclCommHandle* comm, int num_ranks, NcclUniqueId id, int rank,
                                   NcclConfig* config) = nullptr;
  NcclResult (*CommGetAsyncError)(NcclCommHandle comm, NcclResult* error) = nullptr;
  NcclResult (*CommFinalize)(NcclCommHandle comm) = nullptr;
  NcclResult (*CommDestroy)(NcclCommHandle comm) = nullptr;
  NcclResult (*CommAbort)(NcclCommHandle comm) = nullptr;
  NcclResult (*Send)(const void* from, size_t count, NcclDataType type, int peer,
                     NcclCommHandle comm, void* stream) = nullptr;
  NcclResult (*Recv)(void* to, size_t count, NcclDataType type, int peer, NcclCommHandle comm,
                     void* stream) = nullptr;
  NcclResult (*GroupStart)() = nullptr;
  NcclResult (*GroupEnd)() = nullptr;
  const char* (*GetErrorString)(NcclResult result) = nullptr;
  const char* (*GetLastError)(NcclCommHandle comm) = nullptr;
};

// The functions of the library at `path`, or of that name where the dynamic linker looks.
// kNotFound: it is not there. kFailedPrecondition: it is no library, not NCCL, or too old.
absl::StatusOr<NcclApi> OpenNccl(const std::string& path);

// The ones that this process uses, opened by the first call. Thread-safe.
absl::StatusOr<const NcclApi*> Nccl();

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_NCCL_API_H_
