#include "coordinator/placement/suggestions.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "absl/strings/str_cat.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

// The shape with a KV cache of `num_blocks`, and no context longer than that.
StepShape WithBlocks(StepShape shape, int num_blocks) {
  shape.num_kv_blocks = num_blocks;
  shape.context_length = static_cast<int32_t>(
      std::min<int64_t>(shape.context_length, int64_t{num_blocks} * kKvBlockTokens));
  return shape;
}

int ChunkOf(const StepShape& shape) { return shape.max_rows - shape.max_sequences; }

// Every decode fits beside a full chunk of prefill.
StepShape WithChunk(StepShape shape, int chunk) {
  shape.max_rows = chunk + shape.max_sequences;
  shape.max_logit_rows = std::min(shape.max_logit_rows, shape.max_rows);
  return shape;
}

StepShape WithBatch(StepShape shape, int batch) {
  const int chunk = ChunkOf(shape);
  if (shape.max_logit_rows == shape.max_sequences) shape.max_logit_rows = batch;
  shape.max_sequences = batch;
  return WithChunk(shape, chunk);
}

int64_t KvTokens(const StepShape& shape) { return int64_t{shape.num_kv_blocks} * kKvBlockTokens; }

class Search {
 public:
  Search(const model::ModelConfig& config, const model::GgufFile& file, const Plan& plan)
      : config_(config), file_(file), plan_(plan), trial_(plan) {}

  std::vector<Suggestion> Run() {
    const StepShape& shape = plan_.shape;
    AddBlocks(shape);
    AddKvType(shape);
    AddChunk(shape);
    AddBatch(shape);
    AddMoved(/*only_experts=*/false);
    AddMoved(/*only_experts=*/true);
    AddInPlace();
    if (found_.empty()) AddCombination(shape, {});
    if (found_.empty()) AddCombinationInPlace(shape);
    if (found_.empty()) AddNothing();
    return std::move(found_);
  }

 private:
  bool FitsWith(const StepShape& shape) {
    trial_.shape = shape;
    PlanMemoryOfShape(config_, &trial_);
    return Fits(trial_);
  }

  // The largest value below `high` that fits, in whole steps of `step` where there is one; 0: none
  // does. Bytes grow with the value.
  int Largest(int high, const std::function<StepShape(int)>& with) {
    int low = 0;
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      (FitsWith(with(middle)) ? low : high) = middle;
    }
    return low;
  }

  void Add(std::vector<std::pair<std::string, std::string>> settings, std::string message) {
    found_.push_back({std::move(settings), std::move(message)});
  }

  void AddBlocks(const StepShape& shape) {
    const int blocks =
        Largest(shape.num_kv_blocks, [&](int value) { return WithBlocks(shape, value); });
    if (blocks == 0) return;
    const StepShape fitting = WithBlocks(shape, blocks);
    Add({{"kv_tokens", absl::StrCat(KvTokens(fitting))},
         {"context_length", absl::StrCat(fitting.context_length)}},
        absl::StrCat("kv_tokens ", KvTokens(fitting), " with context_length ",
                     fitting.context_length));
  }

  // The first that takes less and fits, from the most exact on.
  void AddKvType(StepShape shape) {
    if (!shape.layer_kv_types.empty()) return;
    const StepShape whole = shape;
    for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
      if (whole.kv_type == type || whole.kv_type == KvType::kQ8_0) continue;
      if (whole.kv_type == KvType::kBF16 && type == KvType::kF16) continue;
      shape.kv_type = type;
      if (!FitsWith(shape)) continue;
      Add({{"kv_type", KvTypeName(type)}}, absl::StrCat("kv_type ", KvTypeName(type)));
      return;
    }
  }

  void AddChunk(const StepShape& shape) {
    const int chunk = Largest(ChunkOf(shape), [&](int value) { return WithChunk(shape, value); });
    if (chunk > 0) Add({{"chunk_size", absl::StrCat(chunk)}}, absl::StrCat("chunk_size ", chunk));
  }

  void AddBatch(const StepShape& shape) {
    const int batch =
        Largest(shape.max_sequences, [&](int value) { return WithBatch(shape, value); });
    if (batch == 0) return;
    Add({{"max_batch_size", absl::StrCat(batch)}}, absl::StrCat("max_batch_size ", batch));
  }

  // The plan with all CPU workers reading their weights in place.
  Plan InPlace() const {
    Plan plan = plan_;
    for (PlacedWorker& worker : plan.workers) {
      if (worker.device.kind == DeviceKind::kCpu) worker.device.layout = PackedLayout::kInPlace;
    }
    MeasureWeights(config_, file_, &plan);
    PlanMemory(config_, &plan);
    return plan;
  }

  void AddInPlace() {
    const Plan plan = InPlace();
    if (!Fits(plan)) return;
    int64_t mapped = 0;
    for (const PlacedWorker& worker : plan.workers) mapped += worker.memory.weights_mapped;
    Add({{"weights", "in_place"}},
        absl::StrCat("weights in_place: ", FormatBytes(mapped),
                     " stay in the file and are read from its pages, which is slower"));
  }

  void AddCombinationInPlace(const StepShape& shape) {
    trial_ = InPlace();
    AddCombination(shape, {{"weights", "in_place"}});
    trial_ = plan_;
  }

  // Half of everything, again and again, until it fits; then as much KV cache as that leaves.
  // `settings` are those of the trial.
  void AddCombination(StepShape shape, std::vector<std::pair<std::string, std::string>> settings) {
    while (!FitsWith(shape)) {
      const StepShape before = shape;
      shape = WithBlocks(shape, std::max(1, shape.num_kv_blocks / 2));
      shape = WithChunk(shape, std::max(1, ChunkOf(shape) / 2));
      shape = WithBatch(shape, std::max(1, shape.max_sequences / 2));
      if (shape == before) return;
    }
    shape.context_length = plan_.shape.context_length;
    const int blocks =
        Largest(plan_.shape.num_kv_blocks, [&](int value) { return WithBlocks(shape, value); });
    shape = WithBlocks(shape, std::max(blocks, 1));
    std::string message = "together: ";
    for (const auto& [name, value] : settings) absl::StrAppend(&message, name, " ", value, ", ");
    settings.insert(settings.end(), {{"chunk_size", absl::StrCat(ChunkOf(shape))},
                                     {"max_batch_size", absl::StrCat(shape.max_sequences)},
                                     {"kv_tokens", absl::StrCat(KvTokens(shape))},
                                     {"context_length", absl::StrCat(shape.context_length)}});
    absl::StrAppend(&message, "chunk_size ", ChunkOf(shape), ", max_batch_size ",
                    shape.max_sequences, ", kv_tokens ", KvTokens(shape), " with context_length ",
                    shape.context_length);
    Add(std::move(settings), std::move(message));
  }

  int64_t Room(const Plan& plan, const PlacedWorker& worker) const {
    for (const PlacedWorker& w : plan.workers) {
      if (w.device.name == worker.device.name) return w.device.budget() - w.memory.total();
    }
    return 0;
  }

  // Layers, or their experts alone, from the only tight device to the one with the most room: the
  // fewest that help, from the end that is next to the other device's.
  void AddMoved(bool only_experts) {
    const PlacedWorker* tight = nullptr;
    const PlacedWorker* roomy = nullptr;
    for (const PlacedWorker& worker : plan_.workers) {
      const int64_t room = Room(plan_, worker);
      if (room < 0) {
        if (tight != nullptr) return;
        tight = &worker;
      } else if (roomy == nullptr || room > Room(plan_, *roomy)) {
        roomy = &worker;
      }
    }
    if (tight == nullptr || roomy == nullptr) return;
    std::vector<int> layers = LayersOf(tight->device.name, only_experts);
    const std::vector<int> others = LayersOf(roomy->device.name, only_experts);
    const bool from_front = !layers.empty() && !others.empty() && others.back() < layers.front();
    if (!from_front) std::reverse(layers.begin(), layers.end());
    Plan moved = plan_;
    std::vector<int> taken;
    for (const int layer : layers) {
      taken.push_back(layer);
      Move(layer, only_experts, tight->device.name, roomy->device.name, &moved);
      if (!Fits(moved)) continue;
      std::sort(taken.begin(), taken.end());
      const std::string ranges = FormatRanges(ToRanges(taken));
      Add({{only_experts ? "experts" : "layers", ranges},
           {"from", tight->device.name},
           {"to", roomy->device.name}},
          absl::StrCat(only_experts ? "the experts of " : "",
                       taken.size() == 1 ? "layer " : "layers ", ranges, " on ", roomy->device.name,
                       " instead of ", tight->device.name));
      return;
    }
  }

  // What several devices share is not moved.
  static bool Counts(const PlacedModule& module, bool only_experts) {
    const Op& op = module.op;
    return module.members.empty() && op.layer >= 0 &&
           (!only_experts || op.kind == OpKind::kExperts);
  }

  // Layers of which this device has anything, or experts.
  std::vector<int> LayersOf(const std::string& device, bool only_experts) const {
    std::vector<int> layers;
    for (const PlacedModule& module : plan_.modules) {
      if (module.device != device || !Counts(module, only_experts)) continue;
      if (layers.empty() || layers.back() != module.op.layer) layers.push_back(module.op.layer);
    }
    return layers;
  }

  void Move(int layer, bool only_experts, const std::string& from, const std::string& to,
            Plan* plan) const {
    for (PlacedModule& module : plan->modules) {
      if (module.op.layer != layer || module.device != from) continue;
      if (!Counts(module, only_experts)) continue;
      module.device = to;
      SetBytes(*plan, &module);
    }
    for (PlacedWorker& worker : plan->workers) {
      worker.ops.clear();
      for (const PlacedModule& module : plan->modules) {
        if (const auto op = OpOn(module, worker.device.name)) worker.ops.push_back(*op);
      }
    }
    PlanMemory(config_, plan);
  }

  // What the module takes on its devices, each with the layout that it has in `plan`.
  void SetBytes(const Plan& plan, PlacedModule* module) const {
    module->packed_bytes = module->in_place_bytes = 0;
    for (const PlacedWorker& worker : plan.workers) {
      const std::optional<Op> op = OpOn(*module, worker.device.name);
      if (!op) continue;
      const ModuleBytes bytes = BytesOf(config_, file_, *op, worker.device.layout);
      module->packed_bytes += bytes.packed;
      module->in_place_bytes += bytes.in_place;
      if (!op->rows.whole()) module->member_bytes[op->rows.member] = bytes;
    }
  }

  void AddNothing() {
    int64_t weights = 0;
    int64_t budget = 0;
    for (const PlacedWorker& worker : plan_.workers) {
      weights += worker.memory.weights_packed;
      budget += worker.device.budget();
    }
    Add({}, absl::StrCat("nothing: no KV cache, chunk or batch is small enough (the weights alone "
                         "are ",
                         FormatBytes(weights), ", the budgets ", FormatBytes(budget),
                         "): use more or larger workers, another split, or a smaller model"));
  }

  const model::ModelConfig& config_;
  const model::GgufFile& file_;
  const Plan& plan_;
  Plan trial_;
  std::vector<Suggestion> found_;
};

}  // namespace

std::vector<Suggestion> NearestFits(const model::ModelConfig& config, const model::GgufFile& file,
                                    const Plan& plan) {
  if (Fits(plan)) return {};
  return Search(config, file, plan).Run();
}

}  // namespace dovetail::coordinator
