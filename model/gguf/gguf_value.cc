// What GgufFile's values are: their names, and typed access that says what it found instead.
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {
namespace {

std::string DescribeType(const GgufValue& value) {
  if (value.type != GgufValueType::kArray) return std::string(GgufValueTypeName(value.type));
  return absl::StrCat("array[", GgufValueTypeName(value.element_type), "]");
}

absl::Status Missing(const GgufFile& file, absl::string_view key) {
  return absl::NotFoundError(absl::StrCat(file.path(), ": metadata key ", key, " is missing"));
}

absl::Status WrongType(const GgufFile& file, absl::string_view key, const GgufValue& value,
                       absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": metadata key ", key, " is ",
                                                 DescribeType(value), ", expected ", wanted));
}

template <typename T>
absl::StatusOr<T> GetExactly(const GgufFile& file, absl::string_view key,
                             absl::string_view wanted) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return Missing(file, key);
  if (const T* found = std::get_if<T>(&value->value)) return *found;
  return WrongType(file, key, *value, wanted);
}

}  // namespace

absl::string_view GgufValueTypeName(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
      return "uint8";
    case GgufValueType::kInt8:
      return "int8";
    case GgufValueType::kUint16:
      return "uint16";
    case GgufValueType::kInt16:
      return "int16";
    case GgufValueType::kUint32:
      return "uint32";
    case GgufValueType::kInt32:
      return "int32";
    case GgufValueType::kFloat32:
      return "float32";
    case GgufValueType::kBool:
      return "bool";
    case GgufValueType::kString:
      return "string";
    case GgufValueType::kArray:
      return "array";
    case GgufValueType::kUint64:
      return "uint64";
    case GgufValueType::kInt64:
      return "int64";
    case GgufValueType::kFloat64:
      return "float64";
  }
  return "unknown";
}

int64_t GgufTensor::elements() const {
  int64_t product = 1;
  for (int64_t dim : shape) product *= dim;  // Open() checked that it does not overflow
  return product;
}

absl::StatusOr<uint64_t> GgufFile::GetUint(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Missing(*this, key);
  if (const auto* u = std::get_if<uint64_t>(&value->value)) return *u;
  if (const auto* i = std::get_if<int64_t>(&value->value)) {
    if (*i >= 0) return static_cast<uint64_t>(*i);
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": metadata key ", key, " is ", *i, ", expected 0 or more"));
  }
  return WrongType(*this, key, *value, "an integer");
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Missing(*this, key);
  if (const auto* d = std::get_if<double>(&value->value)) return *d;
  if (const auto* u = std::get_if<uint64_t>(&value->value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value->value)) return static_cast<double>(*i);
  return WrongType(*this, key, *value, "a number");
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  return GetExactly<bool>(*this, key, "a bool");
}

absl::StatusOr<std::string> GgufFile::GetString(absl::string_view key) const {
  return GetExactly<std::string>(*this, key, "a string");
}

}  // namespace dovetail::model
