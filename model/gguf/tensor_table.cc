#include "model/gguf/tensor_table.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/weight_type.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

// Elements and bytes of `raw`; an empty string, or what is wrong with type or shape.
std::string MeasureTensor(const RawTensor& raw, GgufTensor* tensor) {
  const std::string shape = absl::StrCat("[", absl::StrJoin(raw.shape, ", "), "]");
  const WeightTypeInfo* info = FindWeightType(raw.type_id);
  if (info == nullptr)
    return absl::StrCat("its type cannot be read: ", DescribeWeightType(raw.type_id));
  tensor->type = info->type;
  uint64_t elements = 1;
  for (uint64_t dim : raw.shape) {
    if (dim == 0) return absl::StrCat("shape ", shape, " has a dimension of 0");
    if (__builtin_mul_overflow(elements, dim, &elements) ||
        elements > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::StrCat("shape ", shape, " has more elements than 64 bits can count");
    }
    tensor->shape.push_back(static_cast<int64_t>(dim));
  }
  const auto block = static_cast<uint64_t>(info->block_elements);
  if (raw.shape[0] % block != 0) {
    return absl::StrCat("shape ", shape, ": rows of ", info->name, " are multiples of ", block,
                        " elements");
  }
  if (__builtin_mul_overflow(static_cast<int64_t>(elements / block), info->block_bytes,
                             &tensor->bytes)) {
    return absl::StrCat("shape ", shape, " of type ", info->name, " needs more than 2^63 bytes");
  }
  return "";
}

// The absolute place of the data; an empty string, or what is wrong with it.
std::string PlaceTensor(const RawTensor& raw, const TensorSection& section, GgufTensor* tensor) {
  if (raw.offset % section.alignment != 0) {
    return absl::StrCat("offset ", raw.offset, " is not a multiple of the alignment ",
                        section.alignment);
  }
  const uint64_t data_start =
      (section.header_bytes + section.alignment - 1) / section.alignment * section.alignment;
  uint64_t end;
  if (__builtin_add_overflow(data_start, raw.offset, &tensor->offset) ||
      __builtin_add_overflow(tensor->offset, static_cast<uint64_t>(tensor->bytes), &end)) {
    return absl::StrCat("offset ", raw.offset, " overflows 64 bits");
  }
  if (end > section.file_bytes) {
    return absl::StrCat("its data are bytes ", tensor->offset, " to ", end,
                        ", but the file ends at byte ", section.file_bytes);
  }
  return "";
}

// Messages for every tensor of `placed` (indices) whose data begin inside another one's.
void FindOverlaps(const std::vector<GgufTensor>& tensors, std::vector<size_t> placed,
                  std::vector<std::string>* problem_of) {
  const auto place = [&](size_t i) { return std::pair(tensors[i].offset, tensors[i].bytes); };
  std::sort(placed.begin(), placed.end(), [&](size_t a, size_t b) { return place(a) < place(b); });
  for (size_t n = 1, last = 0; n < placed.size(); ++n) {
    const GgufTensor& before = tensors[placed[last]];
    const GgufTensor& here = tensors[placed[n]];
    const uint64_t end = before.offset + static_cast<uint64_t>(before.bytes);
    if (here.offset < end) {
      (*problem_of)[placed[n]] =
          absl::StrCat("its data at byte ", here.offset, " overlap those of ",
                       QuoteName(before.name), ", which end at byte ", end);
    }
    if (here.offset + static_cast<uint64_t>(here.bytes) > end) last = n;
  }
}

}  // namespace

std::vector<std::string> CheckTensorTable(std::vector<RawTensor> raw, const TensorSection& section,
                                          std::vector<GgufTensor>* tensors) {
  tensors->resize(raw.size());
  std::vector<std::string> problem_of(raw.size());
  std::vector<size_t> placed;
  std::set<absl::string_view> names;
  for (size_t i = 0; i < raw.size(); ++i) {
    GgufTensor& tensor = (*tensors)[i];
    std::string problem = MeasureTensor(raw[i], &tensor);
    if (problem.empty()) problem = PlaceTensor(raw[i], section, &tensor);
    if (problem.empty()) placed.push_back(i);
    if (problem.empty() && !names.insert(raw[i].name).second) problem = "its name appears twice";
    problem_of[i] = std::move(problem);
    tensor.name = raw[i].name;
  }
  FindOverlaps(*tensors, std::move(placed), &problem_of);

  std::vector<std::string> problems;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (problem_of[i].empty()) continue;
    problems.push_back(absl::StrCat("tensor ", QuoteName(raw[i].name), ": ", problem_of[i]));
  }
  return problems;
}

}  // namespace dovetail::model
