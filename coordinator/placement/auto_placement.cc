#include "coordinator/placement/auto_placement.h"

#include <algorithm>
#include <string>

#include "coordinator/placement/auto_split.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/op_choice.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/role.h"
#include "coordinator/placement/speed.h"
#include "model/memory_plan.h"

namespace dovetail::coordinator {
namespace {

// A run of devices that share layers in order.
using Group = std::vector<const DeviceInfo*>;

class Solver {
 public:
  Solver(const model::ModelConfig& config, const model::GgufFile& file,
         const std::vector<DeviceInfo>& devices, const StepShape& shape,
         std::vector<ModulePlacement>* modules)
      : config_(config), file_(file), devices_(devices), shape_(shape), modules_(*modules) {
    for (const DeviceInfo& device : devices) {
      (device.has_gpu_kernels() ? gpus_ : cpus_).push_back(&device);
    }
    MeasureModules();
  }

  void Run() {
    if (gpus_.empty() || cpus_.empty()) {
      SplitWhole(gpus_.empty() ? cpus_ : gpus_);
    } else {
      SplitHybrid();
    }
    for (ModulePlacement& module : modules_) {
      module.op_name = OpName(module.op, "", *FindDevice(devices_, module.device));
    }
  }

 private:
  void MeasureModules() {
    // What is read in place takes no memory, but only if all devices do so.
    const auto packs = std::find_if(devices_.begin(), devices_.end(), [](const DeviceInfo& d) {
      return d.layout != PackedLayout::kInPlace;
    });
    const PackedLayout layout = (packs == devices_.end() ? devices_.begin() : packs)->layout;
    for (const ModulePlacement& module : modules_) {
      PlacedModule placed{module};
      const ModuleBytes bytes = BytesOf(config_, file_, module.op, layout);
      placed.stored_bytes = bytes.stored;
      placed.packed_bytes = bytes.packed;
      placed.in_place_bytes = bytes.in_place;
      model::WorkerMemory memory;
      model::PlanStepMemory(config_, {module.op}, shape_, layout, 1, &memory);
      items_.push_back({.bytes = placed.packed_bytes + memory.kv,
                        .work = BytesRead(config_, placed, 1),
                        .prompt_work = OpsOfPrompt(config_, placed)});
    }
  }

  // What a device needs whatever it holds: the process, rings, and the workspace of all ops that it
  // may get.
  int64_t Overhead(const DeviceInfo& device, bool with_experts) const {
    Plan plan;
    plan.shape = shape_;
    PlacedWorker worker{device, {}, {}};
    for (const ModulePlacement& module : modules_) {
      if (with_experts || !HasRole(module.op, Role::kExperts)) worker.ops.push_back(module.op);
    }
    plan.workers.push_back(std::move(worker));
    plan.route = {{"", {}}, {device.name, {}}};
    PlanMemoryOfShape(config_, &plan);
    const model::WorkerMemory& memory = plan.workers[0].memory;
    return std::max(memory.workspace, memory.load_device) + memory.staging + memory.communication +
           memory.runtime;
  }

  std::vector<SplitDevice> Describe(const Group& group, bool with_experts) const {
    std::vector<SplitDevice> described;
    // Where it is not known of each how fast it multiplies: in proportion to what it reads.
    const bool multiplies = std::all_of(group.begin(), group.end(),
                                        [](const DeviceInfo* d) { return d->int8_ops > 0; });
    for (const DeviceInfo* device : group) {
      SplitDevice d;
      d.room = device->budget() - Overhead(*device, with_experts);
      // Devices that share a memory have it in equal parts.
      if (!device->memory_pool.empty()) {
        const auto sharers = std::count_if(devices_.begin(), devices_.end(), [&](const auto& o) {
          return o.memory_pool == device->memory_pool;
        });
        d.room = device->budget() / sharers - Overhead(*device, with_experts);
      }
      if (device->bandwidth > 0) d.speed = device->bandwidth;
      d.prompt_speed = multiplies ? device->int8_ops : d.speed;
      described.push_back(d);
    }
    return described;
  }

  // The sum of a layer's modules, experts or the others or both.
  SplitItem LayerItem(int layer, bool experts, bool others) const {
    SplitItem sum;
    for (size_t i = 0; i < modules_.size(); ++i) {
      if (modules_[i].op.layer != layer) continue;
      if (HasRole(modules_[i].op, Role::kExperts) ? !experts : !others) continue;
      sum += items_[i];
    }
    return sum;
  }

  SplitItem ItemOf(Role role) const {
    for (size_t i = 0; i < modules_.size(); ++i) {
      if (HasRole(modules_[i].op, role)) return items_[i];
    }
    return {};
  }

  template <typename Wanted>
  void Assign(const std::string& device, Wanted wanted) {
    for (ModulePlacement& module : modules_) {
      if (wanted(module.op)) module.device = device;
    }
  }

  // Layers in runs over devices of one kind; the embedding with the first, the head with the last.
  bool SplitWhole(const Group& group) {
    std::vector<SplitItem> items;
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
      items.push_back(LayerItem(layer, true, true));
    }
    std::vector<SplitDevice> described = Describe(group, true);
    described.front().extra += ItemOf(Role::kEmbedding);
    described.back().extra += ItemOf(Role::kNorm);
    described.back().extra += ItemOf(Role::kLmHead);
    const Split split = SplitRuns(items, described);
    AssignRuns(group, split.begins, 0, [](const Op&) { return true; });
    Assign(group.front()->name, [](const Op& op) { return HasRole(op, Role::kEmbedding); });
    AssignHead(*group.back());
    return split.fits;
  }

  void AssignHead(const DeviceInfo& device) {
    Assign(device.name,
           [](const Op& op) { return HasRole(op, Role::kNorm) || HasRole(op, Role::kLmHead); });
  }

  // Items are the layers from `first_layer` on; `wanted` says which of their modules are meant.
  template <typename Wanted>
  void AssignRuns(const Group& group, const std::vector<int>& begins, int first_layer,
                  Wanted wanted) {
    for (size_t i = 0; i < group.size(); ++i) {
      const int begin = first_layer + begins[i];
      const int end =
          i + 1 < group.size() ? first_layer + begins[i + 1] : config_.num_hidden_layers;
      Assign(group[i]->name,
             [&](const Op& op) { return op.layer >= begin && op.layer < end && wanted(op); });
    }
  }

  // With the layers before `first` whole on the CPU workers: does the rest fit on the GPUs?
  Split SplitCore(int first) const {
    std::vector<SplitItem> items;
    for (int layer = first; layer < config_.num_hidden_layers; ++layer) {
      items.push_back(LayerItem(layer, false, true));
    }
    std::vector<SplitDevice> described = Describe(gpus_, false);
    described.back().extra += ItemOf(Role::kNorm);
    described.back().extra += ItemOf(Role::kLmHead);
    return SplitRuns(items, described);
  }

  void SplitHybrid() {
    const int num_layers = config_.num_hidden_layers;
    int first = 0;
    int too_few = -1;  // the largest number that is known not to be enough
    int enough = num_layers;
    if (!SplitCore(0).fits) {
      too_few = 0;
      while (enough - too_few > 1) {
        const int middle = too_few + (enough - too_few) / 2;
        (SplitCore(middle).fits ? enough : too_few) = middle;
      }
      first = enough;
    }
    const Split core = SplitCore(first);
    if (!core.fits) {  // not even the head
      SplitWhole(cpus_);
      return;
    }
    AssignRuns(gpus_, core.begins, first,
               [](const Op& op) { return !HasRole(op, Role::kExperts); });
    AssignHead(*gpus_.back());
    std::vector<bool> on_gpu(num_layers, false);
    for (size_t i = 0; i < gpus_.size(); ++i) {
      const int begin = first + core.begins[i];
      const int end = i + 1 < gpus_.size() ? first + core.begins[i + 1] : num_layers;
      FillWithExperts(i, begin, end, &on_gpu);
    }
    SplitRest(first, on_gpu);
  }

  // Experts of a GPU's own layers, from the last one back, as long as they fit.
  void FillWithExperts(size_t gpu, int begin, int end, std::vector<bool>* on_gpu) {
    int64_t room = Describe(gpus_, true)[gpu].room;
    for (int layer = begin; layer < end; ++layer) room -= LayerItem(layer, false, true).bytes;
    if (gpu + 1 == gpus_.size()) {
      room -= ItemOf(Role::kNorm).bytes + ItemOf(Role::kLmHead).bytes;
    }
    for (int layer = end - 1; layer >= begin; --layer) {
      const int64_t bytes = LayerItem(layer, true, false).bytes;
      if (bytes == 0) continue;
      if (bytes > room) return;
      room -= bytes;
      (*on_gpu)[layer] = true;
      Assign(gpus_[gpu]->name,
             [&](const Op& op) { return op.layer == layer && HasRole(op, Role::kExperts); });
    }
  }

  // What is left lies in runs on the CPU workers: the first layers whole, of others the experts.
  void SplitRest(int first, const std::vector<bool>& on_gpu) {
    std::vector<SplitItem> items;
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
      items.push_back(on_gpu[layer] ? SplitItem{} : LayerItem(layer, true, layer < first));
    }
    std::vector<SplitDevice> described = Describe(cpus_, true);
    described.front().extra += ItemOf(Role::kEmbedding);
    const Split rest = SplitRuns(items, described);
    AssignRuns(cpus_, rest.begins, 0, [&](const Op& op) {
      return !on_gpu[op.layer] && (op.layer < first || HasRole(op, Role::kExperts));
    });
    Assign(cpus_.front()->name, [](const Op& op) { return HasRole(op, Role::kEmbedding); });
  }

  const model::ModelConfig& config_;
  const model::GgufFile& file_;
  const std::vector<DeviceInfo>& devices_;
  const StepShape& shape_;
  std::vector<ModulePlacement>& modules_;
  std::vector<SplitItem> items_;  // of the modules
  Group gpus_, cpus_;
};

}  // namespace

void PlaceAutomatically(const model::ModelConfig& config, const model::GgufFile& file,
                        const std::vector<DeviceInfo>& devices, const StepShape& shape,
                        std::vector<ModulePlacement>* modules) {
  Solver(config, file, devices, shape, modules).Run();
}

}  // namespace dovetail::coordinator
