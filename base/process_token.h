// ProcessToken: a random number of this process, by which two of its parts know that they are in
// one process, and other processes that they are not. Thread-safe.
#ifndef DOVETAIL_BASE_PROCESS_TOKEN_H_
#define DOVETAIL_BASE_PROCESS_TOKEN_H_

#include <cstdint>

namespace dovetail {

uint64_t ProcessToken();

}  // namespace dovetail

#endif  // DOVETAIL_BASE_PROCESS_TOKEN_H_
