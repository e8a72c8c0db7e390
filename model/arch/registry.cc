#include "model/arch/registry.h"

#include "model/arch/llama.h"

namespace dovetail::model {

absl::Span<const Family> Families() {
  static constexpr Family kFamilies[] = {
      {"llama", &LoadLlama, &LlamaWeightsOf},
  };
  return kFamilies;
}

const Family* FindFamily(absl::string_view architecture) {
  for (const Family& family : Families()) {
    if (family.architecture == architecture) return &family;
  }
  return nullptr;
}

}  // namespace dovetail::model
