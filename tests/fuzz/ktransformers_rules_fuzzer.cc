// Any bytes as a KTransformers rules file: read, mapped onto a tree, linted, converted; and as the
// argument of --override-tensor. Every outcome but a crash or a hang is fine.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/convert.h"
#include "coordinator/placement/ktransformers/lint_file.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "coordinator/placement/override_tensor.h"

namespace {

namespace kt = dovetail::coordinator::ktransformers;

kt::TreeShape SmallShape() {
  const auto shape = kt::ShapeFromHuggingFace(
      R"({"model_type": "deepseek_v3", "num_hidden_layers": 4, "first_k_dense_replace": 1,
          "n_routed_experts": 3, "n_shared_experts": 1, "kv_lora_rank": 4, "q_lora_rank": 4})",
      "shape");
  DT_CHECK(shape.ok());
  return *shape;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dovetail::coordinator;
  static const kt::TreeShape shape = SmallShape();
  static const kt::ModuleTree tree = kt::BuildTree(shape);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const DeviceMap no_map;
  for (const Diagnostic& d : kt::LintText(text, "fuzz", {&tree, no_map, {}, 64, nullptr})) {
    DT_CHECK(d.file == "fuzz" && !d.code.empty() && !d.message.empty());
  }
  const kt::ConvertTarget target{shape, tree, no_map, nullptr};
  if (const auto file = kt::ParseRuleFile(text, "fuzz"); file.ok()) {
    const kt::RuleMap map = kt::MapModules(tree, *file);
    DT_CHECK(!map.entries.empty() && map.entries[0].name.empty());
    for (const kt::MapEntry& entry : map.entries) {
      DT_CHECK(map.Find(entry.name)->name == entry.name);
    }
    DT_CHECK(!kt::RuleMapJson(map, *file).empty());
    const kt::Converted converted = kt::ConvertRules(*file, target);
    DT_CHECK(HasErrors(converted.diagnostics) || !converted.text.empty());
  }
  const std::string argument[] = {text};
  const kt::Converted converted = kt::ConvertOverrides(argument, target);
  DT_CHECK(HasErrors(converted.diagnostics) || !converted.text.empty());
  return 0;
}
