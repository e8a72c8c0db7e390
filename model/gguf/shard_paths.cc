#include "model/gguf/shard_paths.h"

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace dovetail::model {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kExtension = ".gguf";
constexpr size_t kListed = 20;

std::string JoinSome(const std::vector<std::string>& items) {
  if (items.size() <= kListed) return absl::StrJoin(items, ", ");
  const std::vector<std::string> some(items.begin(), items.begin() + kListed);
  return absl::StrCat(absl::StrJoin(some, ", "), " and ", items.size() - kListed, " more");
}

// What is missing of a split model, for a message; empty where nothing is.
std::string MissingShards(const ShardName& name) {
  std::error_code error;
  std::vector<std::string> missing;
  for (int i = 0; i < name.count; ++i) {
    if (!fs::exists(ShardPath(name, i), error)) missing.push_back(absl::StrCat(i + 1));
  }
  if (missing.empty()) return "";
  return absl::StrCat(missing.size() == 1 ? "shard " : "shards ", JoinSome(missing), " of ",
                      name.count, missing.size() == 1 ? " is" : " are", " missing (named like ",
                      ShardPath(name, 0), ")");
}

// A model of a directory as a list shows it, with what is missing of it.
std::string Describe(const std::string& directory, const std::string& file) {
  ShardName shard;
  if (!ParseShardName((fs::path(directory) / file).string(), &shard)) return file;
  const std::string missing = MissingShards(shard);
  return missing.empty() ? file : absl::StrCat(file, " [", missing, "]");
}

// The file that stands for each model in `directory`: of a split one its first shard, there or not.
absl::StatusOr<std::string> OnlyModelIn(const std::string& directory) {
  std::error_code error;
  std::set<std::string> models;
  bool safetensors = false;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    safetensors |= absl::EndsWith(name, ".safetensors");
    if (!absl::EndsWith(name, kExtension)) continue;
    ShardName shard;
    models.insert(ParseShardName(name, &shard) ? ShardPath(shard, 0) : name);
  }
  if (error) return absl::ErrnoToStatus(error.value(), directory);
  if (models.empty()) {
    return absl::NotFoundError(absl::StrCat(
        directory, ": no .gguf file in this directory",
        safetensors ? "; its safetensors must be converted to GGUF, or a GGUF file be downloaded"
                    : ""));
  }
  if (models.size() > 1) {
    std::vector<std::string> described;
    for (const std::string& file : models) described.push_back(Describe(directory, file));
    return absl::InvalidArgumentError(
        absl::StrCat(directory, ": the directory holds ", models.size(),
                     " models; name one of them: ", JoinSome(described)));
  }
  return (fs::path(directory) / *models.begin()).string();
}

// "meta-llama/Llama-3.1-8B": two words and no file of that name.
bool LooksLikeHubName(const std::string& path) {
  if (absl::StrContains(path, "://")) return true;  // hf://, https://
  const size_t slash = path.find('/');
  return slash != std::string::npos && slash > 0 && slash + 1 < path.size() &&
         path.find('/', slash + 1) == std::string::npos && path[0] != '.' && path[0] != '~' &&
         !absl::EndsWith(path, kExtension);
}

}  // namespace

bool ParseShardName(absl::string_view path, ShardName* name) {
  // -NNNNN-of-NNNNN.gguf
  constexpr size_t kTail = 1 + 5 + 4 + 5 + 5;
  if (path.size() < kTail || !absl::EndsWith(path, kExtension)) return false;
  const absl::string_view tail = path.substr(path.size() - kTail);
  const absl::string_view number = tail.substr(1, 5);
  const absl::string_view count = tail.substr(10, 5);
  for (absl::string_view digits : {number, count}) {
    if (digits.find_first_not_of("0123456789") != absl::string_view::npos) return false;
  }
  int no = 0;
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !absl::SimpleAtoi(number, &no) ||
      !absl::SimpleAtoi(count, &name->count) || no < 1 || no > name->count) {
    return false;
  }
  name->stem = std::string(path.substr(0, path.size() - kTail));
  name->index = no - 1;
  return true;
}

std::string ShardPath(const ShardName& name, int index) {
  return absl::StrFormat("%s-%05d-of-%05d.gguf", name.stem, index + 1, name.count);
}

absl::StatusOr<std::vector<std::string>> FindShards(const std::string& path, std::string* missing) {
  missing->clear();
  std::error_code error;
  std::string file = path;
  if (fs::is_directory(path, error)) {
    DT_ASSIGN_OR_RETURN(file, OnlyModelIn(path));
  }
  if (LooksLikeHubName(path) && !fs::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat(
        path,
        ": no such file; a model is given as the path of a GGUF file, not by its name on a hub"));
  }
  ShardName name;
  if (!ParseShardName(file, &name)) return std::vector<std::string>{file};
  std::vector<std::string> paths;
  bool any = false;
  for (int i = 0; i < name.count; ++i) {
    paths.push_back(ShardPath(name, i));
    any |= fs::exists(paths.back(), error);
  }
  if (!any) return absl::ErrnoToStatus(ENOENT, file);
  const std::string list = MissingShards(name);
  if (!list.empty()) *missing = absl::StrCat(name.stem, "-*.gguf: ", list);
  return paths;
}

}  // namespace dovetail::model
