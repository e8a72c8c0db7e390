// Any bytes as a rules file: every outcome but a crash is fine. What parses is applied to a small
// model with experts on described devices: each module has a device or there is an error, and what
// was placed reads back from its own text.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/rules_text.h"
#include "model/hf_config.h"

namespace {

using namespace dovetail;

struct Model {
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
  std::vector<coordinator::DeviceInfo> devices;
  StepShape shape;

  Model() {
    file = model::HeaderFromHfConfig(
               R"({"model_type": "qwen3_moe", "hidden_size": 64, "intermediate_size": 64,
                   "moe_intermediate_size": 32, "num_attention_heads": 2, "num_experts": 4,
                   "num_experts_per_tok": 2, "num_hidden_layers": 3, "vocab_size": 64})",
               "model", WeightType::kF16)
               .value();
    config = model::LoadModelConfig(*file).value();
    devices =
        coordinator::ParseDeviceSpecs({"cpu:0:1GiB:numa0", "cpu:1:1GiB:numa1", "cuda:0:24GiB:sm89"})
            .value();
    shape.max_rows = 9;
    shape.max_sequences = shape.max_logit_rows = 1;
    shape.context_length = 32;
    shape.num_kv_blocks = 1;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Model* const model = new Model();
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto rules = coordinator::ParseRules(text, "fuzz");
  if (!rules.ok()) {
    DT_CHECK(rules.status().message().substr(0, 4) == "fuzz");
    return 0;
  }
  DT_CHECK(!rules->rules.empty());
  const coordinator::Plan plan =
      coordinator::PlanByRules(model->config, *model->file, &*rules, model->devices, model->shape);
  if (coordinator::HasErrors(plan.diagnostics)) return 0;
  const std::vector<coordinator::ModulePlacement> modules(plan.modules.begin(), plan.modules.end());
  const auto again = coordinator::ParseRules(coordinator::RulesText(modules), "again");
  DT_CHECK(again.ok());
  const coordinator::Plan same =
      coordinator::PlanByRules(model->config, *model->file, &*again, model->devices, model->shape);
  DT_CHECK(same.route == plan.route);
  return 0;
}
