// DeviceMoe: a layer with experts on a GPU: routed, sorted and multiplied there, without the host
// learning who chose what.
//
// Launches are as large as any routing could make them; blocks that turn out to have nothing to do
// end at once. Pairs of a row and an expert are cut in groups of rows with the same expert
// (kernels::MatmulGroup), each of which is a tile of a product. Experts of another worker are
// multiplied with while they are on the GPU (ExpertStream).
#ifndef DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_
#define DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "worker/device/device_ops.h"
#include "worker/device/expert_stream.h"
#include "worker/layers/moe.h"

namespace dovetail::worker {

class DeviceMoe : public Moe {
 public:
  // `ops` outlives it. `places`: the weights' place_of on the device, if there are experts.
  DeviceMoe(DeviceOps* ops, const int32_t* places, MoeWeights weights,
            const model::ExpertConfig& config, model::Activation activation);
  void Forward(StepContext& step) const override;

 private:
  // How many pairs and groups a step of so many rows has at most, and rows a group.
  struct Sizes {
    int32_t pairs = 0;
    int32_t groups = 0;
    int32_t group_rows = 0;
  };
  Sizes SizesOf(int32_t rows) const;

  void Route(StepContext& step, const LinearInput& normed) const;
  void SortPairs(StepContext& step, const Sizes& sizes) const;
  // Gate, up and the activation function, for `activated`.
  void ActivateShared(StepContext& step, const LinearInput& normed,
                      const LinearInput& activated) const;
  void ActivateExperts(StepContext& step, const LinearInput& normed, const LinearInput& activated,
                       const Sizes& sizes) const;
  void GatherForms(StepContext& step, const LinearInput& normed, const LinearInput& gathered,
                   int32_t pairs) const;
  // Where the rows of pairs go: counted from the first own one, or from the first of all.
  struct Output {
    float* y = nullptr;
    int64_t stride = 0;
    bool by_y_row = false;
  };
  enum Kind { kGate, kUp, kDown, kNumKinds };
  static const ExpertLinear& MatricesOf(const ExpertRange& range, Kind kind);
  // The matrices of one kind of all experts here: y = matrix of each pair's expert * input row.
  void MultiplyGroups(Kind kind, const LinearInput& input, const Output& output,
                      const Sizes& sizes) const;
  // Of `count` experts from `first` on, which are in the device's memory.
  void Multiply(const ExpertLinear& linear, int32_t first, int32_t count, const LinearInput& input,
                const Output& output, const Sizes& sizes) const;
  void Combine(StepContext& step) const;

  DeviceOps& ops_;
  const int32_t* places_;
  // Of each range that is streamed.
  std::vector<std::array<ExpertStream::Matrices, kNumKinds>> streamed_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_
