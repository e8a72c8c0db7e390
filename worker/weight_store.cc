#include "worker/weight_store.h"

#include "base/check.h"

namespace dovetail::worker {

const model::WeightSlot& WeightStore::SlotOf(const Op& op, model::WeightRole role) const {
  for (const model::WeightSlot& slot : slots) {
    if (slot.op == op && slot.spec.role == role) return slot;
  }
  DT_CHECK(false);
}

const uint8_t* WeightStore::DataOf(const model::WeightSlot& slot) const {
  return weights->data() + slot.offset;
}

Linear WeightStore::LinearOf(const Op& op, model::WeightRole role) const {
  const model::WeightSlot& slot = SlotOf(op, role);
  return {.weight = DataOf(slot),
          .type = slot.type,
          .out_features = static_cast<int32_t>(slot.spec.rows),
          .in_features = static_cast<int32_t>(slot.spec.cols)};
}

const float* WeightStore::VectorOf(const Op& op, model::WeightRole role) const {
  return reinterpret_cast<const float*>(DataOf(SlotOf(op, role)));
}

std::vector<Op> OwnedOps(const Route& route, absl::string_view worker) {
  std::vector<Op> ops;
  for (const Segment& segment : route) {
    if (segment.worker == worker) ops.insert(ops.end(), segment.ops.begin(), segment.ops.end());
  }
  return ops;
}

}  // namespace dovetail::worker
