#include "model/arch/registry.h"

namespace dovetail::model {

// Each is defined in the file of its name.
#define DOVETAIL_FAMILIES(X) \
  X(DeepSeek2)               \
  X(Gemma3)                  \
  X(Glm4Moe)                 \
  X(GptOss)                  \
  X(Llama)                   \
  X(MiniMaxM2)               \
  X(Qwen2)                   \
  X(Qwen2Moe)                \
  X(Qwen3)                   \
  X(Qwen3Moe)

#define DOVETAIL_DECLARE(name) extern const Family k##name;
DOVETAIL_FAMILIES(DOVETAIL_DECLARE)

absl::Span<const Family* const> Families() {
#define DOVETAIL_ADDRESS(name) &k##name,
  static const Family* const kFamilies[] = {DOVETAIL_FAMILIES(DOVETAIL_ADDRESS)};
  return kFamilies;
}

const Family* FindFamily(absl::string_view architecture) {
  for (const Family* family : Families()) {
    if (family->architecture == architecture) return family;
  }
  return nullptr;
}

}  // namespace dovetail::model
