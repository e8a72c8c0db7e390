// Reads the `--tokens` file of eval: a JSON list of lists of token ids.
#ifndef DOVETAIL_TOOLS_DOVETAIL_TOKEN_LISTS_H_
#define DOVETAIL_TOOLS_DOVETAIL_TOKEN_LISTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace dovetail::tools {

// InvalidArgument names the file and the list and index of what is not a token id. No list may be
// empty.
absl::StatusOr<std::vector<std::vector<int32_t>>> ReadTokenLists(const std::string& path);

// The whole file as bytes; NotFound names it.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_TOKEN_LISTS_H_
