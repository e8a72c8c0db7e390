// FullWorkerName: what a worker is called where those of several models meet: in logs, in the list
// of processes, in the run directory.
#ifndef DOVETAIL_BASE_WORKER_NAME_H_
#define DOVETAIL_BASE_WORKER_NAME_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// "tiny/cpu:0"; without a model, as where a coordinator has only one: "cpu:0".
inline std::string FullWorkerName(absl::string_view model, absl::string_view worker) {
  return model.empty() ? std::string(worker) : absl::StrCat(model, "/", worker);
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_WORKER_NAME_H_
