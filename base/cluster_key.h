// The cluster's key: the secret that a worker of another host shows when it registers. A file with
// one line on every host that belongs to the cluster (docs/hosts.md). Thread-safe.
#ifndef DOVETAIL_BASE_CLUSTER_KEY_H_
#define DOVETAIL_BASE_CLUSTER_KEY_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail {

// The file's line, without what is around it. InvalidArgument: it is shorter than 16 characters or
// longer than 512, or has something else than printable ones; messages do not repeat it.
absl::StatusOr<std::string> ReadClusterKey(const std::string& path);

// Takes as long wherever they differ.
bool EqualSecrets(absl::string_view a, absl::string_view b);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_CLUSTER_KEY_H_
