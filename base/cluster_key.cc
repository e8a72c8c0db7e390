#include "base/cluster_key.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail {
namespace {

constexpr size_t kMinBytes = 16;
constexpr size_t kMaxBytes = 512;
constexpr uint64_t kMaxFileBytes = 4096;

}  // namespace

absl::StatusOr<std::string> ReadClusterKey(const std::string& path) {
  DT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  const absl::string_view key = absl::StripAsciiWhitespace(text);
  if (key.size() < kMinBytes || key.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a cluster's key has ", kMinBytes,
                                                   " to ", kMaxBytes, " characters, this one ",
                                                   key.size()));
  }
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
  if (!printable) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a cluster's key is one word of printable characters"));
  }
  return std::string(key);
}

bool EqualSecrets(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned differ = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    differ |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return differ == 0;
}

}  // namespace dovetail
