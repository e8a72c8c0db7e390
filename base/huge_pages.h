// Whether memory can lie in huge pages: reading weights through them was measured up to 1.45 times
// as fast, since neither the hardware's prefetcher nor its page table has to stop every 4 KiB.
//
// Pure readers of /sys and /proc; thread-safe.
#ifndef DOVETAIL_BASE_HUGE_PAGES_H_
#define DOVETAIL_BASE_HUGE_PAGES_H_

#include <string>

namespace dovetail {

// Memory of a process (MemoryMap::MapHuge). `root` is "/" but in tests.
bool HasPrivateHugePages(const std::string& root = "/");

// Files in `directory`, by the option `huge` of the tmpfs that it lies in.
bool HasSharedHugePages(const std::string& directory, const std::string& root = "/");

}  // namespace dovetail

#endif  // DOVETAIL_BASE_HUGE_PAGES_H_
