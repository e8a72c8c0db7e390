#include "model/arch/tensor_check.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/float_convert.h"
#include "base/weight_type.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

// More than any supported model has; hostile files may have a million.
constexpr size_t kListed = 2000;

std::string JoinNames(const std::vector<std::string>& names) {
  const size_t shown = std::min(kListed, names.size());
  std::string text = absl::StrJoin(names.begin(), names.begin() + shown, ", ");
  if (shown < names.size()) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

std::string Counted(absl::string_view what, const std::vector<std::string>& names) {
  return absl::StrCat(names.size(), " ", what,
                      names.size() == 1 ? " tensor: " : " tensors: ", JoinNames(names));
}

// Dimensions of 1 are none.
bool SameShape(std::vector<int64_t> a, std::vector<int64_t> b) {
  std::erase(a, 1);
  std::erase(b, 1);
  return a == b;
}

std::string SupportedTypes() {
  return absl::StrJoin(SupportedWeightTypes(), ", ", [](std::string* out, WeightType type) {
    absl::StrAppend(out, InfoOf(type).name);
  });
}

}  // namespace

std::vector<int64_t> StoredShape(const WeightSpec& spec) {
  if (spec.tensor_stride > 0) return {spec.stored_cols(), spec.experts * spec.tensor_stride};
  std::vector<int64_t> shape = {spec.cols};
  if (!spec.is_vector) shape.push_back(spec.rows);
  if (spec.experts > 0) shape.push_back(spec.experts);
  return shape;
}

std::vector<std::string> CheckTensors(const GgufFile& file, absl::Span<const WeightSpec> specs,
                                      absl::Span<const std::string> also_known) {
  std::vector<std::string> missing, misshapen, unexpected;
  std::map<WeightType, std::vector<std::string>> unsupported, bad_vectors;
  std::set<std::string> known(also_known.begin(), also_known.end());
  for (const WeightSpec& spec : specs) {
    if (!known.insert(spec.tensor).second) continue;  // tied: two ops, one tensor
    const GgufTensor* tensor = file.FindTensor(spec.tensor);
    if (tensor == nullptr) {
      missing.push_back(spec.tensor);
      continue;
    }
    const std::vector<int64_t> wanted = StoredShape(spec);
    if (!SameShape(tensor->shape, wanted)) {
      misshapen.push_back(absl::StrCat("tensor ", spec.tensor, " has shape [",
                                       absl::StrJoin(tensor->shape, ", "), "], expected [",
                                       absl::StrJoin(wanted, ", "), "]"));
    }
    if (spec.is_vector && !IsFloat(tensor->type)) {
      bad_vectors[tensor->type].push_back(spec.tensor);
    } else if (!IsSupported(tensor->type)) {
      unsupported[tensor->type].push_back(spec.tensor);
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (known.count(tensor.name) > 0) continue;
    unexpected.push_back(QuoteName(tensor.name));
  }

  std::vector<std::string> problems;
  if (!missing.empty()) problems.push_back(Counted("missing", missing));
  problems.insert(problems.end(), misshapen.begin(), misshapen.end());
  for (const auto& [type, names] : unsupported) {
    problems.push_back(absl::StrCat("weight type ", InfoOf(type).name,
                                    " is not supported (supported: ", SupportedTypes(), "); ",
                                    Counted("such", names)));
  }
  for (const auto& [type, names] : bad_vectors) {
    problems.push_back(absl::StrCat("norms, biases and scales are F32, F16 or BF16, not ",
                                    InfoOf(type).name, "; ", Counted("such", names)));
  }
  if (!unexpected.empty()) problems.push_back(Counted("unexpected", unexpected));
  return problems;
}

std::vector<double> ReadFloats(const GgufFile& file, const GgufTensor& tensor) {
  DT_CHECK(IsFloat(tensor.type));
  const uint8_t* data = file.Data(tensor).data();
  std::vector<double> values(static_cast<size_t>(tensor.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.type == WeightType::kF32) {
      float value;
      std::memcpy(&value, data + 4 * i, 4);
      values[i] = value;
    } else {
      uint16_t bits;
      std::memcpy(&bits, data + 2 * i, 2);
      values[i] = tensor.type == WeightType::kF16 ? F16ToF32(bits) : Bf16ToF32(bits);
    }
  }
  return values;
}

}  // namespace dovetail::model
