// The memory of this process, as the kernel counts it.
//
// Reads /proc, any thread. 0 where the kernel does not say.
#ifndef DOVETAIL_BASE_PROCESS_MEMORY_H_
#define DOVETAIL_BASE_PROCESS_MEMORY_H_

#include <cstdint>

namespace dovetail {

// Bytes of this process in memory now, pages of files included.
uint64_t ResidentBytes();
// The most that ResidentBytes() was since the process started.
uint64_t PeakResidentBytes();
// Of ResidentBytes(), what this process holds for itself: neither files nor shared memory.
uint64_t PrivateResidentBytes();
// What a memory plan speaks of: private and huge pages, and what was touched of shared memory. Not
// pages of files (code, libraries, a model that is being read), which the kernel keeps once for all
// processes and takes back when it needs room.
uint64_t HeldBytes();

}  // namespace dovetail

#endif  // DOVETAIL_BASE_PROCESS_MEMORY_H_
