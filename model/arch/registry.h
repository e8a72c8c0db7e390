// The model families: one entry per GGUF architecture, and nothing else in the program knows their
// names. A new family is a file model/arch/<family>.cc, which defines a Family, and a line in the
// list of registry.cc.
#ifndef DOVETAIL_MODEL_ARCH_REGISTRY_H_
#define DOVETAIL_MODEL_ARCH_REGISTRY_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/route.h"
#include "model/arch/family_reader.h"
#include "model/model_config.h"

namespace dovetail::model {

struct Family {
  absl::string_view architecture;  // general.architecture
  // Fills the configuration from metadata; problems go to the reader.
  void (*read)(FamilyReader& reader);
  // The weights of one op, in a worker's order.
  std::vector<WeightSpec> (*weights_of)(const ModelConfig& config, const Op& op);
};

absl::Span<const Family* const> Families();
const Family* FindFamily(absl::string_view architecture);  // nullptr for an unknown one

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_REGISTRY_H_
