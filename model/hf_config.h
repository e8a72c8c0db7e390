// HeaderFromHfConfig: the header of a GGUF file that does not exist, from a Hugging Face
// configuration, so that a model can be planned for before it is downloaded.
//
// It has the metadata and the tensors that a converter would write, in one weight type (routers
// and vectors f32, rows that the type's blocks do not divide Q8_0 or F16), and no data. Pure
// function.
#ifndef DOVETAIL_MODEL_HF_CONFIG_H_
#define DOVETAIL_MODEL_HF_CONFIG_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/weight_type.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

// `json` is the text of a config.json, or of a file that holds one as `config`. `name` stands in
// messages and is the model's name. InvalidArgument lists what is missing or not supported.
absl::StatusOr<std::unique_ptr<GgufFile>> HeaderFromHfConfig(absl::string_view json,
                                                             const std::string& name,
                                                             WeightType type);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_HF_CONFIG_H_
