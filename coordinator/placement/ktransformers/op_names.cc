#include "coordinator/placement/ktransformers/op_names.h"

#include "absl/strings/match.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr OpInfo kOps[] = {
    {"KLinearMarlin", false, OpRuns::kCuda, 80, 4},
    {"VLinearMarlin", false, OpRuns::kCuda, 80, 4},
    {"KLinearTorch", false, OpRuns::kAnywhere, 0, 0},
    {"KLinearFP8", false, OpRuns::kCuda, 89, 0},
    {"KLinearQ8", false, OpRuns::kCuda, 0, 8},
    {"KLinearCPUInfer", false, OpRuns::kCpu, 0, 0},
    {"KLinearIPEXLLM", false, OpRuns::kXpu, 0, 4},
    {"KLinearTorchW8A8A2", false, OpRuns::kNpu, 0, 0},
    {"KExpertsCPU", true, OpRuns::kCpu, 0, 0},
    {"KSFTExpertsCPU", true, OpRuns::kCpu, 0, 0},
    {"KExpertsMarlin", true, OpRuns::kCuda, 80, 4},
    {"KExpertsTorch", true, OpRuns::kAnywhere, 0, 0},
    {"KExpertsCPUW8A8", true, OpRuns::kCpu, 0, 0},
};

}  // namespace

const OpInfo* FindOp(absl::string_view name) {
  for (const OpInfo& op : kOps) {
    if (op.name == name) return &op;
  }
  return nullptr;
}

std::vector<absl::string_view> OpNames() {
  std::vector<absl::string_view> names;
  for (const OpInfo& op : kOps) names.push_back(op.name);
  return names;
}

OpClass ClassifyOp(absl::string_view class_path) {
  if (class_path == "default") return OpClass::kDefault;
  const size_t dot = class_path.rfind('.');
  const bool is_short = dot == absl::string_view::npos;
  const absl::string_view name = is_short ? class_path : class_path.substr(dot + 1);
  if (!is_short && !absl::StartsWith(class_path, "ktransformers.operators.")) {
    return OpClass::kUnknown;
  }
  if (absl::StartsWith(name, "KTransformersLinear")) return OpClass::kLinear;
  if (absl::StartsWith(name, "KTransformersExperts") || absl::EndsWith(name, "Experts") ||
      absl::StartsWith(name, "KExperts")) {
    return OpClass::kExperts;
  }
  if (absl::EndsWith(name, "Model")) return OpClass::kModel;
  return OpClass::kImplementation;
}

}  // namespace dovetail::coordinator::ktransformers
