// MeasureReadBandwidth: the ceiling that decode is measured against.
#ifndef DOVETAIL_KERNELS_BANDWIDTH_H_
#define DOVETAIL_KERNELS_BANDWIDTH_H_

#include <cstdint>

#include "base/thread_pool.h"

namespace dovetail::kernels {

// GB/s (10^9 bytes) at which the pool's threads together read a fresh buffer of `bytes` from
// memory, each its own contiguous part, with plain loads of the widest vectors: the best of several
// passes. The buffer is touched by the threads that read it, and leaves all caches before each
// pass, since a server's last level may be larger. Takes about a tenth of a second for 64 MiB.
double MeasureReadBandwidth(ThreadPool* pool, int64_t bytes);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_BANDWIDTH_H_
