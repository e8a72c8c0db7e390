// Files that may be compressed by gzip. Pure functions.
#ifndef DOVETAIL_BASE_GZIP_H_
#define DOVETAIL_BASE_GZIP_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// `data` unpacked if it begins as gzip does, else as it is. kInvalidArgument: damaged or cut off;
// kResourceExhausted: more than `max_bytes` once unpacked. `name` is for messages.
absl::StatusOr<std::string> Gunzip(std::string data, uint64_t max_bytes, absl::string_view name);

// ReadFile (posix.h), then Gunzip.
absl::StatusOr<std::string> ReadMaybeGzipped(const std::string& path, uint64_t max_bytes);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_GZIP_H_
