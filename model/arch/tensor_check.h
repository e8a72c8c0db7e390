// CheckTensors: the tensors that a model needs against those that its file has.
#ifndef DOVETAIL_MODEL_ARCH_TENSOR_CHECK_H_
#define DOVETAIL_MODEL_ARCH_TENSOR_CHECK_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::model {

// The shape of the tensor that holds this weight: [cols, rows, experts] as far as there are any; a
// last dimension of 1 is none.
std::vector<int64_t> StoredShape(const WeightSpec& spec);

// One line for all missing tensors, one per mis-shaped one, one for each weight type that cannot be
// computed with and all its tensors, one for all tensors that no spec names. `also_known`: names
// that the family reads itself.
std::vector<std::string> CheckTensors(const GgufFile& file, absl::Span<const WeightSpec> specs,
                                      absl::Span<const std::string> also_known);

// The elements of a tensor of type F32, F16 or BF16.
std::vector<double> ReadFloats(const GgufFile& file, const GgufTensor& tensor);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_TENSOR_CHECK_H_
