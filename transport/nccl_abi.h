// What of NCCL's C interface is used here, as its public header nccl.h has it, in declarations of
// our own: neither NCCL nor CUDA is needed to build. The stand-in implements the same.
//
// Values and layouts are those of NCCL 2.18, which later versions keep: a configuration says how
// long it is and which version it is of, and fields that came later are left at their defaults.
#ifndef DOVETAIL_TRANSPORT_NCCL_ABI_H_
#define DOVETAIL_TRANSPORT_NCCL_ABI_H_

#include <climits>
#include <cstddef>

namespace dovetail::transport {

// ncclComm_t: a pointer to what only the library knows.
using NcclCommHandle = struct ncclComm*;

struct NcclUniqueId {
  char internal[128];
};

// ncclResult_t
enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclUnhandledCudaError = 1,
  kNcclSystemError = 2,
  kNcclInternalError = 3,
  kNcclInvalidArgument = 4,
  kNcclInvalidUsage = 5,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
};

// ncclDataType_t
enum NcclDataType : int { kNcclUint8 = 1 };

// NCCL_VERSION(2, 18, 1); the version that ncclGetVersion gives is made in the same way.
inline constexpr int kNcclOldestVersion = 21801;

// ncclConfig_t of that version with NCCL_CONFIG_INITIALIZER's values.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned int magic = 0xcafebeef;
  unsigned int version = kNcclOldestVersion;
  int blocking = INT_MIN;  // INT_MIN: not said
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
  int traffic_class = INT_MIN;  // of later versions; padding before them
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_NCCL_ABI_H_
