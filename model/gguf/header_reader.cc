#include "model/gguf/header_reader.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::model {
namespace {

// Far above every real file (a large vocabulary is 10 MB), far below what could exhaust memory.
constexpr uint64_t kMaxHeaderBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;  // of all arrays of a file together
constexpr uint64_t kMaxNameBytes = 65535;

}  // namespace

HeaderReader::HeaderReader(absl::Span<const uint8_t> file, const std::string& name)
    : name_(name),
      file_bytes_(file.size()),
      reader_(file.subspan(0, std::min<uint64_t>(file.size(), kMaxHeaderBytes))) {}

absl::Status HeaderReader::Error(uint64_t offset, absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ": at byte ", offset, ": ", what));
}

absl::Status HeaderReader::Truncated() const {
  if (file_bytes_ > kMaxHeaderBytes) {
    return Error(offset(), absl::StrCat(place_, " reaches beyond the first GiB of the file"));
  }
  return Error(offset(), absl::StrCat("the file ends inside ", place_, " (", left(),
                                      " bytes are left); is it complete?"));
}

absl::Status HeaderReader::ReadString(uint64_t max_bytes, std::string* text) {
  const uint64_t start = offset();
  uint64_t length = 0;
  DT_RETURN_IF_ERROR(Read(&length));
  if (length > max_bytes) {
    return Error(start, absl::StrCat("a name of ", length, " bytes in ", place_, "; at most ",
                                     max_bytes, " are allowed"));
  }
  absl::string_view view;
  if (!reader_.ReadBytes(length, &view)) {
    return Error(start, absl::StrCat("a string of ", length, " bytes in ", place_, ", but only ",
                                     left(), " bytes are left in the file"));
  }
  *text = std::string(view);
  return absl::OkStatus();
}

absl::Status HeaderReader::ReadName(std::string* name) { return ReadString(kMaxNameBytes, name); }

absl::Status HeaderReader::ReadValue(GgufValue* value) {
  const uint64_t start = offset();
  uint32_t type = 0;
  DT_RETURN_IF_ERROR(Read(&type));
  if (type > static_cast<uint32_t>(GgufValueType::kFloat64)) {
    return Error(start, absl::StrCat("unknown value type ", type, " in ", place_));
  }
  value->type = static_cast<GgufValueType>(type);
  return value->type == GgufValueType::kArray ? ReadArray(value) : ReadScalar(value->type, value);
}

template <typename Stored, typename Wide>
absl::Status HeaderReader::ReadNumber(GgufValue* out) {
  Stored stored{};
  DT_RETURN_IF_ERROR(Read(&stored));
  out->value = static_cast<Wide>(stored);
  return absl::OkStatus();
}

template <typename Stored, typename Wide>
absl::Status HeaderReader::ReadNumbers(uint64_t count, GgufValue* out) {
  if (left() / sizeof(Stored) < count) return Truncated();
  std::vector<Wide> values(count);
  for (Wide& wide : values) {
    Stored stored{};
    DT_CHECK(reader_.Read(&stored));
    wide = static_cast<Wide>(stored);
  }
  out->value = std::move(values);
  return absl::OkStatus();
}

absl::Status HeaderReader::ReadScalar(GgufValueType type, GgufValue* out) {
  switch (type) {
    case GgufValueType::kUint8:
      return ReadNumber<uint8_t, uint64_t>(out);
    case GgufValueType::kUint16:
      return ReadNumber<uint16_t, uint64_t>(out);
    case GgufValueType::kUint32:
      return ReadNumber<uint32_t, uint64_t>(out);
    case GgufValueType::kUint64:
      return ReadNumber<uint64_t, uint64_t>(out);
    case GgufValueType::kInt8:
      return ReadNumber<int8_t, int64_t>(out);
    case GgufValueType::kInt16:
      return ReadNumber<int16_t, int64_t>(out);
    case GgufValueType::kInt32:
      return ReadNumber<int32_t, int64_t>(out);
    case GgufValueType::kInt64:
      return ReadNumber<int64_t, int64_t>(out);
    case GgufValueType::kFloat32:
      return ReadNumber<float, double>(out);
    case GgufValueType::kFloat64:
      return ReadNumber<double, double>(out);
    case GgufValueType::kBool: {
      const uint64_t start = offset();
      uint8_t byte = 0;
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
    case GgufValueType::kArray:
      break;
  }
  DT_CHECK(false);
}

absl::Status HeaderReader::ReadArray(GgufValue* out) {
  const uint64_t start = offset();
  uint32_t type = 0;
  uint64_t count = 0;
  DT_RETURN_IF_ERROR(Read(&type));
  DT_RETURN_IF_ERROR(Read(&count));
  if (type == static_cast<uint32_t>(GgufValueType::kArray)) {
    return Error(start, absl::StrCat("an array of arrays in ", place_, " is not supported"));
  }
  if (type > static_cast<uint32_t>(GgufValueType::kFloat64)) {
    return Error(start, absl::StrCat("unknown element type ", type, " in ", place_));
  }
  if (count > kMaxArrayElements - num_array_elements_ || count > left()) {
    return Error(start, absl::StrCat("an array of ", count, " elements in ", place_, ", but ",
                                     left(), " bytes are left in the file and at most ",
                                     kMaxArrayElements, " elements are allowed"));
  }
  num_array_elements_ += count;
  out->element_type = static_cast<GgufValueType>(type);
  return ReadElements(count, out);
}

absl::Status HeaderReader::ReadElements(uint64_t count, GgufValue* out) {
  switch (out->element_type) {
    case GgufValueType::kUint8:
      return ReadNumbers<uint8_t, uint64_t>(count, out);
    case GgufValueType::kUint16:
      return ReadNumbers<uint16_t, uint64_t>(count, out);
    case GgufValueType::kUint32:
      return ReadNumbers<uint32_t, uint64_t>(count, out);
    case GgufValueType::kUint64:
      return ReadNumbers<uint64_t, uint64_t>(count, out);
    case GgufValueType::kInt8:
      return ReadNumbers<int8_t, int64_t>(count, out);
    case GgufValueType::kInt16:
      return ReadNumbers<int16_t, int64_t>(count, out);
    case GgufValueType::kInt32:
      return ReadNumbers<int32_t, int64_t>(count, out);
    case GgufValueType::kInt64:
      return ReadNumbers<int64_t, int64_t>(count, out);
    case GgufValueType::kFloat32:
      return ReadNumbers<float, double>(count, out);
    case GgufValueType::kFloat64:
      return ReadNumbers<double, double>(count, out);
    case GgufValueType::kBool:
      return ReadBools(count, out);
    case GgufValueType::kString:
      return ReadStrings(count, out);
    case GgufValueType::kArray:
      break;
  }
  DT_CHECK(false);
}

absl::Status HeaderReader::ReadBools(uint64_t count, GgufValue* out) {
  const uint64_t start = offset();
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

absl::Status HeaderReader::ReadStrings(uint64_t count, GgufValue* out) {
  if (left() / sizeof(uint64_t) < count) return Truncated();
  std::vector<std::string> values(count);
  for (std::string& text : values) {
    DT_RETURN_IF_ERROR(ReadString(std::numeric_limits<uint64_t>::max(), &text));
  }
  out->value = std::move(values);
  return absl::OkStatus();
}

}  // namespace dovetail::model
