#include "base/huge_pages.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/posix.h"

namespace dovetail {
namespace {

constexpr uint64_t kMostBytes = uint64_t{4} << 20;

std::string ReadOrEmpty(const std::string& path) {
  return ReadFile(path, kMostBytes).value_or(std::string());
}

// Whether `directory` is `mount` or lies below it.
bool LiesIn(absl::string_view directory, absl::string_view mount) {
  if (mount == "/") return true;
  return absl::StartsWith(directory, mount) &&
         (directory.size() == mount.size() || directory[mount.size()] == '/');
}

}  // namespace

bool HasPrivateHugePages(const std::string& root) {
  const std::string choice =
      ReadOrEmpty(absl::StrCat(root, "sys/kernel/mm/transparent_hugepage/enabled"));
  return absl::StrContains(choice, "[always]") || absl::StrContains(choice, "[madvise]");
}

bool HasSharedHugePages(const std::string& directory, const std::string& root) {
  // Lines as in fstab(5); of the mounts that hold the directory the longest is its own, and of
  // several at one place the last.
  size_t longest = 0;
  bool huge = false;
  const std::string mounts = ReadOrEmpty(absl::StrCat(root, "proc/self/mounts"));
  for (absl::string_view line : absl::StrSplit(mounts, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    if (fields.size() < 4 || fields[1].size() < longest || !LiesIn(directory, fields[1])) continue;
    longest = fields[1].size();
    huge = false;
    for (absl::string_view option : absl::StrSplit(fields[3], ',')) {
      huge |= fields[2] == "tmpfs" && absl::StartsWith(option, "huge=") && option != "huge=never";
    }
  }
  return huge;
}

}  // namespace dovetail
