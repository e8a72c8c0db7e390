#include "model/gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/gguf/byte_reader.h"
#include "model/gguf/tensor_table.h"

namespace dovetail::model {
namespace {

// Far above every real file (metadata of a large vocabulary is 10 MB; the most tensors seen are some
// 50,000), far below what could exhaust memory.
constexpr uint64_t kMaxHeaderBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxMetadataEntries = uint64_t{1} << 16;
constexpr uint64_t kMaxTensors = uint64_t{1} << 20;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;  // of all arrays of a file together
constexpr uint64_t kMaxNameBytes = 65535;

constexpr uint64_t kMinMetadataEntryBytes = 8 + 4 + 1;       // length, type, one byte of value
constexpr uint64_t kMinTensorEntryBytes = 8 + 4 + 8 + 4 + 8;  // length, n_dims, dim, type, offset
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr size_t kListedTensors = 20;

class Parser {
 public:
  Parser(absl::Span<const uint8_t> bytes, const std::string& name)
      : name_(name),
        file_bytes_(bytes.size()),
        reader_(bytes.subspan(0, std::min<uint64_t>(bytes.size(), kMaxHeaderBytes))) {}

  absl::StatusOr<GgufShard> Parse() {
    DT_RETURN_IF_ERROR(ReadPreamble());
    DT_RETURN_IF_ERROR(ReadMetadata());
    DT_RETURN_IF_ERROR(ReadTensors());
    return std::move(shard_);
  }

 private:
  absl::Status Error(uint64_t offset, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": at byte ", offset, ": ", what));
  }
  absl::Status Truncated() const {
    if (file_bytes_ > kMaxHeaderBytes && reader_.left() < 16) {
      return Error(reader_.offset(), "the header is larger than 1 GiB");
    }
    return Error(reader_.offset(),
                 absl::StrCat("the file ends inside ", place_, " (", reader_.left(),
                              " bytes left); is the download complete?"));
  }
  template <typename T>
  absl::Status Read(T* value) {
    return reader_.Read(value) ? absl::OkStatus() : Truncated();
  }

  absl::Status ReadString(uint64_t max_bytes, std::string* text);
  absl::Status ReadPreamble();
  absl::Status ReadMetadata();
  absl::Status ReadScalar(GgufValueType type, GgufValue* out);
  absl::Status ReadArray(GgufValue* out);
  absl::Status ReadTensors();
  absl::Status ReadTensor(RawTensor* tensor);
  absl::StatusOr<uint64_t> Alignment() const;

  template <typename Stored, typename Wide>
  absl::Status ReadNumbers(uint64_t count, GgufValue* out) {
    if (reader_.left() / sizeof(Stored) < count) return Truncated();
    std::vector<Wide> values(count);
    for (Wide& wide : values) {
      Stored stored;
      DT_CHECK(reader_.Read(&stored));
      wide = static_cast<Wide>(stored);
    }
    out->value = std::move(values);
    return absl::OkStatus();
  }
  absl::Status ReadBools(uint64_t count, GgufValue* out);
  absl::Status ReadStrings(uint64_t count, GgufValue* out);

  const std::string& name_;
  const uint64_t file_bytes_;
  ByteReader reader_;
  std::string place_ = "the header";  // what is being read, for messages
  GgufShard shard_;
  uint64_t num_metadata_ = 0;
  uint64_t num_tensors_ = 0;
  uint64_t num_array_elements_ = 0;
};

absl::Status Parser::ReadString(uint64_t max_bytes, std::string* text) {
  const uint64_t start = reader_.offset();
  uint64_t length;
  DT_RETURN_IF_ERROR(Read(&length));
  if (length > max_bytes) {
    return Error(start, absl::StrCat("a name of ", length, " bytes in ", place_, "; at most ",
                                     max_bytes, " are allowed"));
  }
  absl::string_view view;
  if (!reader_.ReadBytes(length, &view)) {
    return Error(start, absl::StrCat("a string of ", length, " bytes in ", place_, ", but only ",
                                     reader_.left(), " bytes are left in the file"));
  }
  *text = std::string(view);
  return absl::OkStatus();
}

absl::Status Parser::ReadPreamble() {
  absl::string_view magic;
  if (!reader_.ReadBytes(std::min<uint64_t>(4, reader_.left()), &magic) || magic != "GGUF") {
    return Error(0, absl::StrCat("not a GGUF file: it begins with \"",
                                 absl::CHexEscape(magic), "\" instead of \"GGUF\"",
                                 magic == "vers" ? " (a Git LFS pointer? fetch the file itself)"
                                                 : ""));
  }
  DT_RETURN_IF_ERROR(Read(&shard_.version));
  const uint32_t swapped = __builtin_bswap32(shard_.version);
  if (shard_.version > 0xffff && swapped <= 0xffff) {
    return Error(4, absl::StrCat("a big-endian GGUF file (version ", swapped,
                                 "); only little-endian files can be read"));
  }
  if (shard_.version != 2 && shard_.version != 3) {
    return Error(4, absl::StrCat("GGUF version ", shard_.version,
                                 " is not supported; expected 2 or 3"));
  }
  DT_RETURN_IF_ERROR(Read(&num_tensors_));
  DT_RETURN_IF_ERROR(Read(&num_metadata_));
  const uint64_t left = reader_.left();
  if (num_tensors_ > kMaxTensors || num_tensors_ > left / kMinTensorEntryBytes) {
    return Error(8, absl::StrCat("the header claims ", num_tensors_, " tensors, more than ", left,
                                 " remaining bytes can describe"));
  }
  if (num_metadata_ > kMaxMetadataEntries || num_metadata_ > left / kMinMetadataEntryBytes) {
    return Error(16, absl::StrCat("the header claims ", num_metadata_,
                                  " metadata entries, more than ", left,
                                  " remaining bytes can hold"));
  }
  return absl::OkStatus();
}

absl::Status Parser::ReadMetadata() {
  std::set<std::string> seen;
  for (uint64_t i = 0; i < num_metadata_; ++i) {
    place_ = absl::StrCat("metadata entry ", i + 1, " of ", num_metadata_);
    const uint64_t start = reader_.offset();
    std::string key;
    DT_RETURN_IF_ERROR(ReadString(kMaxNameBytes, &key));
    absl::StrAppend(&place_, " (", QuoteName(key), ")");
    if (!seen.insert(key).second) {
      return Error(start, absl::StrCat("metadata key ", QuoteName(key), " appears twice"));
    }
    uint32_t type;
    const uint64_t type_offset = reader_.offset();
    DT_RETURN_IF_ERROR(Read(&type));
    GgufValue value;
    if (type == static_cast<uint32_t>(GgufValueType::kArray)) {
      value.type = GgufValueType::kArray;
      DT_RETURN_IF_ERROR(ReadArray(&value));
    } else if (type <= static_cast<uint32_t>(GgufValueType::kFloat64)) {
      value.type = static_cast<GgufValueType>(type);
      DT_RETURN_IF_ERROR(ReadScalar(value.type, &value));
    } else {
      return Error(type_offset, absl::StrCat("unknown value type ", type, " in ", place_));
    }
    shard_.metadata.emplace_back(std::move(key), std::move(value));
  }
  return absl::OkStatus();
}

absl::Status Parser::ReadScalar(GgufValueType type, GgufValue* out) {
  const auto read_as = [&]<typename Stored, typename Wide>(Stored stored, Wide wide) {
    absl::Status status = Read(&stored);
    if (status.ok()) out->value = static_cast<Wide>(stored);
    return status;
  };
  switch (type) {
    case GgufValueType::kUint8: return read_as(uint8_t{}, uint64_t{});
    case GgufValueType::kUint16: return read_as(uint16_t{}, uint64_t{});
    case GgufValueType::kUint32: return read_as(uint32_t{}, uint64_t{});
    case GgufValueType::kUint64: return read_as(uint64_t{}, uint64_t{});
    case GgufValueType::kInt8: return read_as(int8_t{}, int64_t{});
    case GgufValueType::kInt16: return read_as(int16_t{}, int64_t{});
    case GgufValueType::kInt32: return read_as(int32_t{}, int64_t{});
    case GgufValueType::kInt64: return read_as(int64_t{}, int64_t{});
    case GgufValueType::kFloat32: return read_as(float{}, double{});
    case GgufValueType::kFloat64: return read_as(double{}, double{});
    case GgufValueType::kBool: {
      const uint64_t start = reader_.offset();
      uint8_t byte;
      DT_RETURN_IF_ERROR(Read(&byte));
      if (byte > 1) {
        return Error(start, absl::StrCat("a bool with value ", byte, " in ", place_));
      }
      out->value = byte == 1;
      return absl::OkStatus();
    }
    case GgufValueType::kString: {
      std::string text;
      DT_RETURN_IF_ERROR(ReadString(std::numeric_limits<uint64_t>::max(), &text));
      out->value = std::move(text);
      return absl::OkStatus();
    }
    case GgufValueType::kArray: break;
  }
  DT_CHECK(false);
}

absl::Status Parser::ReadArray(GgufValue* out) {
  const uint64_t start = reader_.offset();
  uint32_t type;
  uint64_t count;
  DT_RETURN_IF_ERROR(Read(&type));
  DT_RETURN_IF_ERROR(Read(&count));
  if (type == static_cast<uint32_t>(GgufValueType::kArray)) {
    return Error(start, absl::StrCat("an array of arrays in ", place_, " is not supported"));
  }
  if (type > static_cast<uint32_t>(GgufValueType::kFloat64)) {
    return Error(start, absl::StrCat("unknown element type ", type, " in ", place_));
  }
  if (count > kMaxArrayElements - num_array_elements_ || count > reader_.left()) {
    return Error(start, absl::StrCat("an array of ", count, " elements in ", place_, ", but ",
                                     reader_.left(), " bytes are left in the file and at most ",
                                     kMaxArrayElements, " elements are allowed"));
  }
  num_array_elements_ += count;
  out->element_type = static_cast<GgufValueType>(type);
  switch (out->element_type) {
    case GgufValueType::kUint8: return ReadNumbers<uint8_t, uint64_t>(count, out);
    case GgufValueType::kUint16: return ReadNumbers<uint16_t, uint64_t>(count, out);
    case GgufValueType::kUint32: return ReadNumbers<uint32_t, uint64_t>(count, out);
    case GgufValueType::kUint64: return ReadNumbers<uint64_t, uint64_t>(count, out);
    case GgufValueType::kInt8: return ReadNumbers<int8_t, int64_t>(count, out);
    case GgufValueType::kInt16: return ReadNumbers<int16_t, int64_t>(count, out);
    case GgufValueType::kInt32: return ReadNumbers<int32_t, int64_t>(count, out);
    case GgufValueType::kInt64: return ReadNumbers<int64_t, int64_t>(count, out);
    case GgufValueType::kFloat32: return ReadNumbers<float, double>(count, out);
    case GgufValueType::kFloat64: return ReadNumbers<double, double>(count, out);
    case GgufValueType::kBool: return ReadBools(count, out);
    case GgufValueType::kString: return ReadStrings(count, out);
    case GgufValueType::kArray: break;
  }
  DT_CHECK(false);
}

absl::Status Parser::ReadBools(uint64_t count, GgufValue* out) {
  const uint64_t start = reader_.offset();
  absl::string_view bytes;
  if (!reader_.ReadBytes(count, &bytes)) return Truncated();
  std::vector<bool> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    if (byte > 1) {
      return Error(start + i, absl::StrCat("a bool with value ", byte, " in ", place_));
    }
    values[i] = byte == 1;
  }
  out->value = std::move(values);
  return absl::OkStatus();
}

absl::Status Parser::ReadStrings(uint64_t count, GgufValue* out) {
  if (reader_.left() / sizeof(uint64_t) < count) return Truncated();
  std::vector<std::string> values(count);
  for (std::string& text : values) {
    DT_RETURN_IF_ERROR(ReadString(std::numeric_limits<uint64_t>::max(), &text));
  }
  out->value = std::move(values);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Parser::Alignment() const {
  for (const auto& [key, value] : shard_.metadata) {
    if (key != "general.alignment") continue;
    const uint64_t* number = std::get_if<uint64_t>(&value.value);
    if (number == nullptr || !std::has_single_bit(*number) || *number > (1u << 30)) {
      return absl::InvalidArgumentError(absl::StrCat(
          name_, ": general.alignment is not a power of two up to 1073741824",
          number != nullptr ? absl::StrCat(": ", *number) : std::string()));
    }
    return *number;
  }
  return kDefaultAlignment;
}

absl::Status Parser::ReadTensor(RawTensor* tensor) {
  const uint64_t start = reader_.offset();
  DT_RETURN_IF_ERROR(ReadString(kMaxNameBytes, &tensor->name));
  absl::StrAppend(&place_, " (", QuoteName(tensor->name), ")");
  uint32_t num_dims;
  DT_RETURN_IF_ERROR(Read(&num_dims));
  if (num_dims < 1 || num_dims > kMaxDimensions) {
    return Error(start, absl::StrCat(place_, " has ", num_dims, " dimensions; expected 1 to ",
                                     kMaxDimensions));
  }
  tensor->shape.resize(num_dims);
  for (uint64_t& dim : tensor->shape) DT_RETURN_IF_ERROR(Read(&dim));
  DT_RETURN_IF_ERROR(Read(&tensor->type_id));
  return Read(&tensor->offset);
}

absl::Status Parser::ReadTensors() {
  DT_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment());
  std::vector<RawTensor> raw;
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    place_ = absl::StrCat("the description of tensor ", i + 1, " of ", num_tensors_);
    DT_RETURN_IF_ERROR(ReadTensor(&raw.emplace_back()));
  }
  shard_.header_bytes = reader_.offset();
  const std::vector<std::string> problems =
      CheckTensorTable(std::move(raw), {shard_.header_bytes, alignment, file_bytes_},
                       &shard_.tensors);
  if (problems.empty()) return absl::OkStatus();
  const std::string head = absl::StrCat(name_, ": ", problems.size(), " of ", num_tensors_,
                                        " tensors cannot be used");
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
