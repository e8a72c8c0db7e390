// ProgressPrinter: what a person sees on stderr while workers register and load.
//
// On a terminal one line that is rewritten; otherwise a line per tenth. Called by one thread at a
// time.
#ifndef DOVETAIL_TOOLS_DOVETAIL_PROGRESS_H_
#define DOVETAIL_TOOLS_DOVETAIL_PROGRESS_H_

#include <mutex>
#include <string>

#include "coordinator/coordinator.h"

namespace dovetail::tools {

class ProgressPrinter {
 public:
  ProgressPrinter();
  void Show(const coordinator::StatusSnapshot& status);

 private:
  std::mutex mutex_;
  bool terminal_;
  std::string last_;
};

// "waiting for workers", "loading", "ready", ...
const char* StateName(coordinator::ServingState state);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_PROGRESS_H_
