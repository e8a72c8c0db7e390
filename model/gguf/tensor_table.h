// CheckTensorTable: tensor descriptions as a file claims them, checked against that file.
#ifndef DOVETAIL_MODEL_GGUF_TENSOR_TABLE_H_
#define DOVETAIL_MODEL_GGUF_TENSOR_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/gguf/gguf_file.h"

namespace dovetail::model {

struct RawTensor {  // nothing in it is checked yet
  std::string name;
  std::vector<uint64_t> shape;
  uint32_t type_id = 0;
  uint64_t offset = 0;  // from the start of the data section
};

struct TensorSection {
  uint64_t header_bytes = 0;  // the data section starts at the next multiple of `alignment`
  uint64_t alignment = 0;     // a power of two
  uint64_t file_bytes = 0;
};

// Fills `tensors` (in the same order) and returns one message for each tensor that cannot be used:
// repeated name, unknown type, bad shape, misaligned, outside the file, overlapping another.
std::vector<std::string> CheckTensorTable(std::vector<RawTensor> raw, const TensorSection& section,
                                          std::vector<GgufTensor>* tensors);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_TENSOR_TABLE_H_
