#include "model/gguf/gguf_file.h"

#include <algorithm>

#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/gguf/gguf_parser.h"
#include "model/gguf/mapped_file.h"
#include "model/gguf/shard_paths.h"
#include "xxhash.h"

namespace dovetail::model {

struct GgufFile::Impl {
  std::string path;
  uint32_t version = 0;
  std::vector<std::string> shard_paths;
  std::vector<std::unique_ptr<MappedFile>> maps;
  int64_t file_bytes = 0;
  uint64_t fingerprint = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::unordered_map<std::string, size_t> key_index;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string, size_t> tensor_index;
};

namespace {

constexpr size_t kListedDuplicates = 20;

// A split.* number of a shard; `absent` where the key is missing or no integer.
int64_t SplitNumber(const GgufShard& shard, absl::string_view key, int64_t absent) {
  for (const auto& [name, value] : shard.metadata) {
    if (name != key) continue;
    if (const auto* u = std::get_if<uint64_t>(&value.value)) return static_cast<int64_t>(*u);
    if (const auto* i = std::get_if<int64_t>(&value.value)) return *i;
  }
  return absent;
}

// Shard `idx` of `count` says of itself that it is that.
absl::Status CheckShard(const GgufShard& shard, const std::string& path, int idx, int count) {
  const int64_t split_count = SplitNumber(shard, "split.count", 0);
  if (count == 1 && split_count <= 1) return absl::OkStatus();
  if (count == 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": split.count is ", split_count, ", but the file is not named like a shard (",
        "name-00001-of-0000N.gguf), so the others cannot be found"));
  }
  if (split_count != count) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the name says ", count, " shards, split.count says ", split_count));
  }
  const int64_t split_no = SplitNumber(shard, "split.no", -1);
  if (split_no != idx) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the name says shard ", idx + 1,
                                                   ", split.no says shard ", split_no + 1));
  }
  return absl::OkStatus();
}

absl::Status OpenShard(const std::string& path, int idx, int count,
                       std::unique_ptr<MappedFile>* map, GgufShard* shard) {
  DT_ASSIGN_OR_RETURN(*map, MappedFile::Open(path));
  DT_ASSIGN_OR_RETURN(*shard, ParseGguf((*map)->bytes(), path));
  return CheckShard(*shard, path, idx, count);
}

// One status with all messages, one a line, and the code of the first.
absl::Status Join(absl::Span<const absl::Status> problems) {
  std::vector<std::string> messages;
  for (const absl::Status& problem : problems) messages.emplace_back(problem.message());
  return absl::Status(problems.front().code(), absl::StrJoin(messages, "\n"));
}

void HashShard(XXH3_state_t* state, const GgufShard& shard, absl::Span<const uint8_t> bytes) {
  const uint64_t size = bytes.size();
  XXH3_64bits_update(state, &size, sizeof(size));
  XXH3_64bits_update(state, bytes.data(), shard.header_bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path,
                                                         absl::Status* incomplete) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  Impl& impl = *file->impl_;
  impl.path = path;
  std::string missing;
  DT_ASSIGN_OR_RETURN(impl.shard_paths, FindShards(path, &missing));
  const int count = static_cast<int>(impl.shard_paths.size());
  impl.maps.resize(count);
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(),
                                                                             XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  int64_t total_tensors = -1;
  std::vector<std::string> duplicates;
  std::vector<absl::Status> problems;  // of shards that cannot be read: all of them are named
  if (!missing.empty()) problems.push_back(absl::NotFoundError(missing));
  for (int i = 0; i < count; ++i) {
    const std::string& shard_path = impl.shard_paths[i];
    std::unique_ptr<MappedFile>& map = impl.maps[i];
    GgufShard shard;
    if (const absl::Status s = OpenShard(shard_path, i, count, &map, &shard); !s.ok()) {
      if (missing.empty() || !absl::IsNotFound(s)) problems.push_back(s);
      continue;
    }
    HashShard(hash.get(), shard, map->bytes());
    impl.file_bytes += static_cast<int64_t>(map->bytes().size());
    for (GgufTensor& tensor : shard.tensors) {
      tensor.shard = i;
      if (!impl.tensor_index.emplace(tensor.name, impl.tensors.size()).second) {
        duplicates.push_back(
            absl::StrCat("tensor ", QuoteName(tensor.name), " again in ", shard_path));
      }
      impl.tensors.push_back(std::move(tensor));
    }
    if (i == 0) {
      total_tensors = SplitNumber(shard, "split.tensors.count", -1);
      impl.version = shard.version;
      impl.metadata = std::move(shard.metadata);
    }
  }
  if (!problems.empty() && (incomplete == nullptr || impl.version == 0)) return Join(problems);
  if (!duplicates.empty()) {
    return absl::InvalidArgumentError(
        ListProblems(absl::StrCat(path, ": shards repeat tensors"), duplicates, kListedDuplicates));
  }
  if (!problems.empty()) {
    *incomplete = Join(problems);
  } else if (count > 1 && total_tensors != static_cast<int64_t>(impl.tensors.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the ", count, " shards hold ", impl.tensors.size(),
                     " tensors, split.tensors.count of the first says ", total_tensors));
  }
  for (size_t i = 0; i < impl.metadata.size(); ++i) impl.key_index[impl.metadata[i].first] = i;
  impl.fingerprint = XXH3_64bits_digest(hash.get());
  return file;
}

std::unique_ptr<GgufFile> GgufFile::FromHeader(
    std::string name, std::vector<std::pair<std::string, GgufValue>> metadata,
    std::vector<GgufTensor> tensors) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  Impl& impl = *file->impl_;
  impl.path = name;
  impl.shard_paths = {std::move(name)};
  impl.metadata = std::move(metadata);
  impl.tensors = std::move(tensors);
  for (size_t i = 0; i < impl.metadata.size(); ++i) impl.key_index[impl.metadata[i].first] = i;
  for (size_t i = 0; i < impl.tensors.size(); ++i) {
    impl.tensor_index.emplace(impl.tensors[i].name, i);
    impl.file_bytes += impl.tensors[i].bytes;
  }
  return file;
}

GgufFile::GgufFile() : impl_(std::make_unique<Impl>()) {}
GgufFile::~GgufFile() = default;

uint32_t GgufFile::version() const { return impl_->version; }
const std::string& GgufFile::path() const { return impl_->path; }
absl::Span<const std::string> GgufFile::shard_paths() const { return impl_->shard_paths; }
int64_t GgufFile::file_bytes() const { return impl_->file_bytes; }
uint64_t GgufFile::fingerprint() const { return impl_->fingerprint; }

const std::vector<std::pair<std::string, GgufValue>>& GgufFile::metadata() const {
  return impl_->metadata;
}

const GgufValue* GgufFile::Find(absl::string_view key) const {
  const auto it = impl_->key_index.find(std::string(key));
  return it == impl_->key_index.end() ? nullptr : &impl_->metadata[it->second].second;
}

absl::Span<const GgufTensor> GgufFile::tensors() const { return impl_->tensors; }

const GgufTensor* GgufFile::FindTensor(absl::string_view name) const {
  const auto it = impl_->tensor_index.find(std::string(name));
  return it == impl_->tensor_index.end() ? nullptr : &impl_->tensors[it->second];
}

absl::Span<const uint8_t> GgufFile::Data(const GgufTensor& tensor) const {
  DT_CHECK(tensor.shard >= 0 && static_cast<size_t>(tensor.shard) < impl_->maps.size());
  return impl_->maps[tensor.shard]->bytes().subspan(tensor.offset,
                                                    static_cast<size_t>(tensor.bytes));
}

void GgufFile::DropPages(const GgufTensor& tensor) const {
  impl_->maps[tensor.shard]->DropPages(tensor.offset,
                                       tensor.offset + static_cast<uint64_t>(tensor.bytes));
}

void GgufFile::ReadAhead(const GgufTensor& tensor, int64_t begin, int64_t end) const {
  impl_->maps[tensor.shard]->ReadAhead(
      tensor.offset + static_cast<uint64_t>(begin),
      tensor.offset + static_cast<uint64_t>(std::min<int64_t>(end, tensor.bytes)));
}

}  // namespace dovetail::model
