// WeightStore: the weights and the KV cache of a loaded plan.
//
// Made by LoadWeights (weight_loader.h). Matrices lie in its memory or, with
// PackedLayout::kInPlace, in the pages of the mapped file. Constant but for the KV cache, which the
// layers write through their views. Pointers stay valid as long as the store.
#ifndef DOVETAIL_WORKER_WEIGHT_STORE_H_
#define DOVETAIL_WORKER_WEIGHT_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/packed_layout.h"
#include "base/route.h"
#include "kernels/ops.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "model/model_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/memory.h"

namespace dovetail::worker {

struct WeightStore {
  model::ModelConfig config;
  PackedLayout layout = PackedLayout::kRaw;
  std::vector<Op> ops;                   // owned, in route order
  std::vector<model::WeightSlot> slots;  // of these ops
  std::unique_ptr<Memory> weights;
  std::unique_ptr<model::GgufFile> file;         // that matrices are read from in place, if any are
  std::unique_ptr<Memory> kv;                    // null without attention
  std::map<int64_t, std::vector<float>> scales;  // of weights on a GPU, by the offset of their slot
  bool reattached = false;  // the weights were complete: nothing was read from the file
  bool from_cache = false;  // they were copied from the weight cache

  // The weight with `role` of `op`, which must be owned.
  Linear LinearOf(const Op& op, model::WeightRole role) const;
  const float* VectorOf(const Op& op, model::WeightRole role) const;
  // What only some models have; nullptr, or no bias, in the others.
  const float* FindVector(const Op& op, model::WeightRole role) const;
  Linear LinearOf(const Op& op, model::WeightRole role, model::WeightRole bias) const;
  ExpertLinear ExpertsOf(const Op& op, model::WeightRole role, model::WeightRole bias) const;
  ExpertLinear MatricesOf(const Op& op, model::WeightRole role) const;  // of heads
  // The columns of the members that share the op's rows, of which `last` is the last matrix:
  // between its products, or in the residual stream.
  enum class Columns { kInner, kOuter };
  MemberColumns ColumnsOf(const Op& op, Columns which, model::WeightRole last) const;
  // Of a matrix, or of each of an op's experts; nullptr where the file has none.
  const float* FindScale(const model::WeightSlot& matrix) const;
  float FirstScale(const model::WeightSlot& matrix) const;  // 1 where it has none
  const model::WeightSlot* FindScaleSlot(const model::WeightSlot& matrix) const;
  const model::WeightSlot* FindSlot(const Op& op, model::WeightRole role) const;
  const model::WeightSlot& SlotOf(const Op& op, model::WeightRole role) const;
  const uint8_t* DataOf(const model::WeightSlot& slot) const;
  // Of what is in its memory, and not in the file.
  uint64_t weight_bytes() const { return weights->bytes(); }
};

// All ops of `worker` in `route`, in order; where it shares rows, its own rows of them.
std::vector<Op> OwnedOps(const Route& route, absl::string_view worker);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_WEIGHT_STORE_H_
