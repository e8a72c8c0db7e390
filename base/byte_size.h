// Byte counts as people write them. Pure functions.
#ifndef DOVETAIL_BASE_BYTE_SIZE_H_
#define DOVETAIL_BASE_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// "8GiB", "512MiB", "1.5GB", "1000" -> bytes.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "0 B", "512 B", "12.3 MiB", "1.50 GiB".
std::string FormatBytes(int64_t bytes);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_BYTE_SIZE_H_
