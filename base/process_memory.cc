#include "base/process_memory.h"

#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace dovetail {
namespace {

std::string ReadProcStatus() {
  std::ifstream file("/proc/self/status");
  return {std::istreambuf_iterator<char>(file), {}};
}

// The line "NAME: 123 kB".
uint64_t BytesIn(absl::string_view status, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::ConsumePrefix(&line, name) || !absl::ConsumeSuffix(&line, " kB")) continue;
    uint64_t kibibytes = 0;
    return absl::SimpleAtoi(line, &kibibytes) ? kibibytes * 1024 : 0;
  }
  return 0;
}

}  // namespace

uint64_t ResidentBytes() { return BytesIn(ReadProcStatus(), "VmRSS:"); }

uint64_t PeakResidentBytes() { return BytesIn(ReadProcStatus(), "VmHWM:"); }

uint64_t PrivateResidentBytes() { return BytesIn(ReadProcStatus(), "RssAnon:"); }

uint64_t HeldBytes() {
  const std::string status = ReadProcStatus();
  return BytesIn(status, "RssAnon:") + BytesIn(status, "RssShmem:") +
         BytesIn(status, "HugetlbPages:");
}

}  // namespace dovetail
