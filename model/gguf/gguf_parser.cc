#include "model/gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gguf/header_reader.h"
#include "model/gguf/tensor_table.h"

namespace dovetail::model {
namespace {

// Far above every real file (metadata of a large vocabulary is 10 MB; the most tensors seen are
// some 50,000), far below what could exhaust memory.
constexpr uint64_t kMaxMetadataEntries = uint64_t{1} << 16;
constexpr uint64_t kMaxTensors = uint64_t{1} << 20;

constexpr uint64_t kMinMetadataEntryBytes = 8 + 4 + 1;        // length, type, one byte of value
constexpr uint64_t kMinTensorEntryBytes = 8 + 4 + 8 + 4 + 8;  // length, n_dims, dim, type, offset
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr size_t kListedTensors = 20;

class Parser {
 public:
  Parser(absl::Span<const uint8_t> bytes, const std::string& name)
      : name_(name), reader_(bytes, name) {}

  absl::StatusOr<GgufShard> Parse() {
    DT_RETURN_IF_ERROR(ReadPreamble());
    DT_RETURN_IF_ERROR(ReadMetadata());
    DT_RETURN_IF_ERROR(ReadTensors());
    return std::move(shard_);
  }

 private:
  absl::Status ReadPreamble();
  absl::Status ReadMetadata();
  absl::StatusOr<uint64_t> Alignment() const;
  absl::Status ReadTensor(const std::string& place, RawTensor* tensor);
  absl::Status ReadTensors();

  const std::string& name_;
  HeaderReader reader_;
  GgufShard shard_;
  uint64_t num_metadata_ = 0;
  uint64_t num_tensors_ = 0;
};

// What a file that is none may be instead, by its first 10 bytes.
absl::string_view OtherFormat(absl::string_view begin) {
  if (absl::StartsWith(begin, "vers")) return " (a Git LFS pointer? fetch the file itself)";
  // The length of a JSON text, then the text.
  if (begin.size() == 10 && begin.substr(8) == "{\"") {
    return " (a safetensors file? convert it to GGUF, or download a GGUF file)";
  }
  return "";
}

absl::Status Parser::ReadPreamble() {
  absl::string_view begin, magic;
  ByteReader ahead = reader_.bytes();
  if (!ahead.ReadBytes(std::min<uint64_t>(10, reader_.left()), &begin)) begin = "";
  if (!reader_.bytes().ReadBytes(std::min<uint64_t>(4, reader_.left()), &magic) ||
      magic != "GGUF") {
    return reader_.Error(0,
                         absl::StrCat("not a GGUF file: it begins with \"", absl::CHexEscape(magic),
                                      "\" instead of \"GGUF\"", OtherFormat(begin)));
  }
  DT_RETURN_IF_ERROR(reader_.Read(&shard_.version));
  const uint32_t swapped = __builtin_bswap32(shard_.version);
  if (shard_.version > 0xffff && swapped <= 0xffff) {
    return reader_.Error(4, absl::StrCat("a big-endian GGUF file (version ", swapped,
                                         "); only little-endian files can be read"));
  }
  if (shard_.version != 2 && shard_.version != 3) {
    return reader_.Error(
        4, absl::StrCat("GGUF version ", shard_.version, " is not supported; expected 2 or 3"));
  }
  DT_RETURN_IF_ERROR(reader_.Read(&num_tensors_));
  DT_RETURN_IF_ERROR(reader_.Read(&num_metadata_));
  const uint64_t left = reader_.left();
  if (num_tensors_ > std::min(kMaxTensors, left / kMinTensorEntryBytes)) {
    return reader_.Error(
        8, absl::StrCat("the header claims ", num_tensors_, " tensors, more than the remaining ",
                        left, " bytes can describe"));
  }
  if (num_metadata_ > std::min(kMaxMetadataEntries, left / kMinMetadataEntryBytes)) {
    return reader_.Error(
        16, absl::StrCat("the header claims ", num_metadata_,
                         " metadata entries, more than the remaining ", left, " bytes can hold"));
  }
  return absl::OkStatus();
}

absl::Status Parser::ReadMetadata() {
  std::set<std::string> seen;
  for (uint64_t i = 0; i < num_metadata_; ++i) {
    const std::string place = absl::StrCat("metadata entry ", i + 1, " of ", num_metadata_);
    reader_.set_place(place);
    const uint64_t start = reader_.offset();
    std::string key;
    DT_RETURN_IF_ERROR(reader_.ReadName(&key));
    reader_.set_place(absl::StrCat(place, " (", QuoteName(key), ")"));
    if (!seen.insert(key).second) {
      return reader_.Error(start, absl::StrCat("metadata key ", QuoteName(key), " appears twice"));
    }
    GgufValue value;
    DT_RETURN_IF_ERROR(reader_.ReadValue(&value));
    shard_.metadata.emplace_back(std::move(key), std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Parser::Alignment() const {
  for (const auto& [key, value] : shard_.metadata) {
    if (key != "general.alignment") continue;
    const uint64_t* number = std::get_if<uint64_t>(&value.value);
    if (number == nullptr || !std::has_single_bit(*number) || *number > (1u << 30)) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, ": general.alignment is not a power of two up to 1073741824",
                       number != nullptr ? absl::StrCat(": ", *number) : std::string()));
    }
    return *number;
  }
  return kDefaultAlignment;
}

absl::Status Parser::ReadTensor(const std::string& place, RawTensor* tensor) {
  const uint64_t start = reader_.offset();
  reader_.set_place(place);
  DT_RETURN_IF_ERROR(reader_.ReadName(&tensor->name));
  const std::string named = absl::StrCat(place, " (", QuoteName(tensor->name), ")");
  reader_.set_place(named);
  uint32_t num_dims = 0;
  DT_RETURN_IF_ERROR(reader_.Read(&num_dims));
  if (num_dims < 1 || num_dims > kMaxDimensions) {
    return reader_.Error(start, absl::StrCat(named, " has ", num_dims,
                                             " dimensions; expected 1 to ", kMaxDimensions));
  }
  tensor->shape.resize(num_dims);
  for (uint64_t& dim : tensor->shape) DT_RETURN_IF_ERROR(reader_.Read(&dim));
  DT_RETURN_IF_ERROR(reader_.Read(&tensor->type_id));
  return reader_.Read(&tensor->offset);
}

absl::Status Parser::ReadTensors() {
  DT_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment());
  std::vector<RawTensor> raw;
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    DT_RETURN_IF_ERROR(
        ReadTensor(absl::StrCat("the description of tensor ", i + 1, " of ", num_tensors_),
                   &raw.emplace_back()));
  }
  shard_.header_bytes = reader_.offset();
  const std::vector<std::string> problems = CheckTensorTable(
      std::move(raw), {shard_.header_bytes, alignment, reader_.file_bytes()}, &shard_.tensors);
  if (problems.empty()) return absl::OkStatus();
  const std::string head =
      absl::StrCat(name_, ": ", problems.size(), " of ", num_tensors_, " tensors cannot be used");
  return absl::InvalidArgumentError(ListProblems(head, problems, kListedTensors));
}

}  // namespace

absl::StatusOr<GgufShard> ParseGguf(absl::Span<const uint8_t> bytes, const std::string& name) {
  return Parser(bytes, name).Parse();
}

std::string QuoteName(absl::string_view name) {
  constexpr size_t kMaxShown = 100;
  const bool cut = name.size() > kMaxShown;
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMaxShown)), cut ? "..." : "", "\"");
}

std::string ListProblems(absl::string_view head, absl::Span<const std::string> problems,
                         size_t limit) {
  std::string text = absl::StrCat(head, ":");
  for (size_t i = 0; i < std::min(limit, problems.size()); ++i) {
    absl::StrAppend(&text, "\n  ", problems[i]);
  }
  if (problems.size() > limit) {
    absl::StrAppend(&text, "\n  and ", problems.size() - limit, " more");
  }
  return text;
}

}  // namespace dovetail::model
