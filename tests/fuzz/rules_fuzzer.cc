// Any bytes as a rules file: every outcome but a crash is fine, and what parses must answer for
// every module.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "coordinator/placement/rule_set.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dovetail;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto rules = coordinator::ParseRules(text, "fuzz");
  if (!rules.ok()) {
    DT_CHECK(rules.status().message().substr(0, 4) == "fuzz");
    return 0;
  }
  DT_CHECK(!rules->rules.empty());
  for (const coordinator::Rule& rule : rules->rules) {
    DT_CHECK(!rule.place.empty() && !rule.location.empty());
    for (const auto& [first, last] : rule.layers) DT_CHECK(first >= 0 && first <= last);
    int matched = 0;
    for (int32_t layer = -1; layer < 4; ++layer) {
      for (OpKind kind : {OpKind::kEmbedding, OpKind::kAttention, OpKind::kMlp, OpKind::kNorm}) {
        matched += rule.Matches({kind, layer}) ? 1 : 0;
      }
    }
    DT_CHECK(rule.experts.empty() || matched == 0);
  }
  return 0;
}
