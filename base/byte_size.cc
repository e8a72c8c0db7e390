#include "base/byte_size.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace dovetail {

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  struct Unit {
    absl::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"", 1},
                             {"B", 1},
                             {"KiB", 1024},
                             {"MiB", 1048576.0},
                             {"GiB", 1073741824.0},
                             {"TiB", 1099511627776.0},
                             {"Ki", 1024},
                             {"Mi", 1048576.0},
                             {"Gi", 1073741824.0},
                             {"Ti", 1099511627776.0},
                             {"KB", 1e3},
                             {"MB", 1e6},
                             {"GB", 1e9},
                             {"TB", 1e12},
                             {"K", 1e3},
                             {"M", 1e6},
                             {"G", 1e9},
                             {"T", 1e12}};
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const absl::string_view unit = absl::StripAsciiWhitespace(text.substr(digits));
  double number = 0;
  if (absl::SimpleAtod(text.substr(0, digits), &number)) {
    for (const Unit& known : kUnits) {
      if (unit != known.name) continue;
      const double bytes = std::round(number * known.bytes);
      if (bytes > 0 && bytes < 9e18) return static_cast<int64_t>(bytes);
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("`", text.substr(0, 60), "` is not a size such as 8GiB, 512MiB, 1.5GB or 1000"));
}

std::string FormatBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (std::abs(value) >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B")
                   : absl::StrFormat("%.*f %s", unit >= 3 ? 2 : 1, value, kUnits[unit]);
}

}  // namespace dovetail
