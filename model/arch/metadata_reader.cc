#include "model/arch/metadata_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {

std::string MetadataReader::FullKey(absl::string_view key) const {
  return absl::StrCat(architecture_, ".", key);
}

void MetadataReader::AddProblem(absl::string_view key, absl::string_view what) {
  problems_.push_back(absl::StrCat(FullKey(key), ": ", what));
}

// The number that `value` is, or that all elements of the array are; otherwise notes a problem.
std::optional<double> MetadataReader::UniformNumber(absl::string_view key, const GgufValue& value) {
  const auto uniform = [&](const auto& elements) -> std::optional<double> {
    for (const auto element : elements) {
      if (element == elements[0]) continue;
      AddProblem(key, absl::StrCat("differs from layer to layer (", elements[0], " and ", element,
                                   "), which is not supported"));
      return std::nullopt;
    }
    if (!elements.empty()) return static_cast<double>(elements[0]);
    AddProblem(key, "is an empty array");
    return std::nullopt;
  };
  if (const auto* u = std::get_if<uint64_t>(&value.value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value.value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&value.value)) return *d;
  if (const auto* us = std::get_if<std::vector<uint64_t>>(&value.value)) return uniform(*us);
  if (const auto* is = std::get_if<std::vector<int64_t>>(&value.value)) return uniform(*is);
  AddProblem(key, absl::StrCat("is ", GgufValueTypeName(value.type), ", expected a number"));
  return std::nullopt;
}

const GgufValue* MetadataReader::Find(absl::string_view key) {
  read_.insert(std::string(key));
  return file_.Find(FullKey(key));
}

int32_t MetadataReader::Integer(absl::string_view key, int32_t min, int32_t max,
                                std::optional<int32_t> otherwise) {
  const double number = Number(key, min, max, otherwise);
  if (number != std::floor(number)) {
    AddProblem(key, absl::StrCat("is ", number, ", not an integer"));
  }
  return static_cast<int32_t>(number);
}

int32_t MetadataReader::Dimension(absl::string_view key, int32_t max,
                                  std::optional<int32_t> otherwise) {
  return Integer(key, 1, max, otherwise);
}

int32_t MetadataReader::Count(absl::string_view key, int32_t max,
                              std::optional<int32_t> otherwise) {
  return Integer(key, 0, max, otherwise);
}

double MetadataReader::Number(absl::string_view key, double min, double max,
                              std::optional<double> otherwise) {
  const double harmless = otherwise.value_or(min);
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    if (!otherwise.has_value()) AddProblem(key, "is missing");
    return harmless;
  }
  const std::optional<double> number = UniformNumber(key, *value);
  if (!number.has_value()) return harmless;
  if (std::isfinite(*number) && *number >= min && *number <= max) return *number;
  AddProblem(key, absl::StrFormat("is %.10g, expected %.10g to %.10g", *number, min, max));
  return harmless;
}

std::string MetadataReader::Text(absl::string_view key, absl::string_view otherwise) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::string(otherwise);
  if (const auto* text = std::get_if<std::string>(&value->value)) return *text;
  AddProblem(key, absl::StrCat("is ", GgufValueTypeName(value->type), ", expected a string"));
  return std::string(otherwise);
}

bool MetadataReader::Flag(absl::string_view key, bool otherwise) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return otherwise;
  if (const auto* flag = std::get_if<bool>(&value->value)) return *flag;
  AddProblem(key, absl::StrCat("is ", GgufValueTypeName(value->type), ", expected a bool"));
  return otherwise;
}

}  // namespace dovetail::model
