// The screen of `dovetail top`: two snapshots of a server's state as lines for a terminal. Pure
// functions.
#ifndef DOVETAIL_TOOLS_DOVETAIL_TOP_SCREEN_H_
#define DOVETAIL_TOOLS_DOVETAIL_TOP_SCREEN_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace dovetail::v1 {
class GetStatusResponse;
}  // namespace dovetail::v1

namespace dovetail::tools {

struct TopShape {
  int columns = 100;
  int rows = 30;
  bool colour = true;
};

// One line each, none longer than the terminal is wide, not more than it is high. Rates are
// differences between `before` and `now`, which came `seconds` later; a server that was started
// anew in between has none.
std::vector<std::string> TopScreen(const v1::GetStatusResponse& before,
                                   const v1::GetStatusResponse& now, double seconds,
                                   const TopShape& shape);

// "[#####.....]" with `width` places; `fraction` from 0 to 1.
std::string Bar(double fraction, int width);
// 1234567 -> "1.2 MB"; powers of 1000.
std::string HumanBytes(double bytes);
// "1h 02m", "3m 07s", "12s"
std::string HumanTime(double seconds);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_TOP_SCREEN_H_
