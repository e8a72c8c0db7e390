#include "worker/weight_store.h"

#include "base/check.h"
#include "model/row_parts.h"

namespace dovetail::worker {

const model::WeightSlot* WeightStore::FindSlot(const Op& op, model::WeightRole role) const {
  for (const model::WeightSlot& slot : slots) {
    if (slot.op == op && slot.spec.role == role) return &slot;
  }
  if (role != model::WeightRole::kMlpNorm) return nullptr;
  // The parts of a layer with experts share the norm before them.
  for (const model::WeightSlot& slot : slots) {
    if (slot.op.layer == op.layer && slot.spec.role == role) return &slot;
  }
  return nullptr;
}

const model::WeightSlot& WeightStore::SlotOf(const Op& op, model::WeightRole role) const {
  const model::WeightSlot* slot = FindSlot(op, role);
  DT_CHECK(slot != nullptr);
  return *slot;
}

const uint8_t* WeightStore::DataOf(const model::WeightSlot& slot) const {
  if (!slot.in_place) return weights->data() + slot.offset;
  return file->Data(*file->FindTensor(slot.spec.tensor)).data() + slot.source_offset;
}

Linear WeightStore::LinearOf(const Op& op, model::WeightRole role) const {
  const model::WeightSlot& slot = SlotOf(op, role);
  return {.weight = DataOf(slot),
          .type = slot.type,
          .out_features = static_cast<int32_t>(slot.spec.rows),
          .in_features = static_cast<int32_t>(slot.spec.cols),
          .in_place = slot.in_place,
          .scale = FirstScale(slot)};
}

MemberColumns WeightStore::ColumnsOf(const Op& op, Columns which, model::WeightRole last) const {
  if (op.rows.whole()) return {};
  const model::WeightSlot* slot = FindSlot(op, last);
  const model::RowParts parts =
      model::RowPartsOf(config, op, slot == nullptr ? WeightType::kF32 : slot->type);
  return {which == Columns::kInner ? parts.inner : parts.outer, op.rows.member};
}

const model::WeightSlot* WeightStore::FindScaleSlot(const model::WeightSlot& matrix) const {
  const std::string name = model::ScaleTensor(matrix.spec.tensor);
  for (const model::WeightSlot& slot : slots) {
    if (slot.op == matrix.op && slot.spec.tensor == name) return &slot;
  }
  return nullptr;
}

const float* WeightStore::FindScale(const model::WeightSlot& matrix) const {
  const model::WeightSlot* slot = FindScaleSlot(matrix);
  return slot == nullptr ? nullptr : reinterpret_cast<const float*>(DataOf(*slot));
}

float WeightStore::FirstScale(const model::WeightSlot& matrix) const {
  const model::WeightSlot* slot = FindScaleSlot(matrix);
  if (slot == nullptr) return 1.0f;
  const auto on_host = scales.find(slot->offset);
  return on_host != scales.end() ? on_host->second.front() : *FindScale(matrix);
}

const float* WeightStore::VectorOf(const Op& op, model::WeightRole role) const {
  return reinterpret_cast<const float*>(DataOf(SlotOf(op, role)));
}

const float* WeightStore::FindVector(const Op& op, model::WeightRole role) const {
  const model::WeightSlot* slot = FindSlot(op, role);
  return slot == nullptr ? nullptr : reinterpret_cast<const float*>(DataOf(*slot));
}

Linear WeightStore::LinearOf(const Op& op, model::WeightRole role, model::WeightRole bias) const {
  Linear linear = LinearOf(op, role);
  linear.bias = FindVector(op, bias);
  // Biases are whole where the rows are shared.
  if (linear.bias != nullptr) linear.bias += SlotOf(op, role).spec.tensor_first;
  return linear;
}

ExpertLinear WeightStore::ExpertsOf(const Op& op, model::WeightRole role,
                                    model::WeightRole bias) const {
  const model::WeightSlot& slot = SlotOf(op, role);
  return {.first = LinearOf(op, role, bias),
          .stride = slot.stride(),
          .bias_stride = slot.spec.tensor_stride > 0 ? slot.spec.tensor_stride : slot.spec.rows,
          .scales = FindScale(slot)};
}

ExpertLinear WeightStore::MatricesOf(const Op& op, model::WeightRole role) const {
  const model::WeightSlot& slot = SlotOf(op, role);
  return {.first = LinearOf(op, role), .stride = slot.stride()};
}

std::vector<Op> OwnedOps(const Route& route, absl::string_view worker) {
  std::vector<Op> ops;
  for (const Segment& segment : route) {
    const int member = MemberOf(segment, std::string(worker));
    if (member < 0) continue;
    const std::vector<Op> own = OpsOfMember(segment, member);
    ops.insert(ops.end(), own.begin(), own.end());
  }
  return ops;
}

}  // namespace dovetail::worker
