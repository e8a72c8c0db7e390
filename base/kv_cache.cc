#include "base/kv_cache.h"

namespace dovetail {

const char* KvTypeName(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kBF16:
      return "bf16";
    case KvType::kQ8_0:
      return "q8_0";
  }
  return "unknown";
}

bool FindKvType(absl::string_view name, KvType* type) {
  for (const KvType known : kKvTypes) {
    if (name != KvTypeName(known)) continue;
    *type = known;
    return true;
  }
  return false;
}

}  // namespace dovetail
