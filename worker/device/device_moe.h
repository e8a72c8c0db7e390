// DeviceMoe: a layer with experts on a GPU: routed, sorted and multiplied there, without the host
// learning who chose what.
//
// Launches are as large as any routing could make them; blocks that turn out to have nothing to do
// end at once. Pairs of a row and an expert are cut in groups of rows with the same expert
// (kernels::MatmulGroup), each of which is a tile of a product.
#ifndef DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_
#define DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_

#include <cstdint>

#include "worker/device/device_ops.h"
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
  // One of the three matrices of all own experts: y = matrix of each pair's expert * input row.
  void MultiplyGroups(ExpertLinear ExpertRange::*matrix, const LinearInput& input,
                      const Output& output, const Sizes& sizes) const;
  void Combine(StepContext& step) const;

  DeviceOps& ops_;
  const int32_t* places_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_DEVICE_MOE_H_
