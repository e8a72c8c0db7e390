// FindShards: from what a user names to the files of one model.
#ifndef DOVETAIL_MODEL_GGUF_SHARD_PATHS_H_
#define DOVETAIL_MODEL_GGUF_SHARD_PATHS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::model {

// "dir/name-00002-of-00003.gguf": stem "dir/name", index 1, count 3.
struct ShardName {
  std::string stem;
  int index = 0;
  int count = 0;
};

// False where `path` is not named like a shard.
bool ParseShardName(absl::string_view path, ShardName* name);
std::string ShardPath(const ShardName& name, int index);

// All files of the model at `path`: itself, all shards beside it, or the only model of a directory.
// A directory with several models is refused with the list of them. Shards that are missing are
// among the paths; `missing` lists them by number, and is empty where none is.
absl::StatusOr<std::vector<std::string>> FindShards(const std::string& path, std::string* missing);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_SHARD_PATHS_H_
