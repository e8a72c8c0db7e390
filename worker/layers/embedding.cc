#include "worker/layers/embedding.h"

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

Embedding::Embedding(const Table& table, WeightType type, int32_t hidden_size, float scale)
    : table_(table), type_(type), hidden_size_(hidden_size), scale_(scale) {}

void Embedding::Forward(StepContext& step) const {
  step.x_rows = step.rows;
  step.ops.Embed(step,
                 {.table = table_.rows,
                  .type = type_,
                  .row_bytes = StoredBytes(type_, hidden_size_),
                  .tokens = step.tokens.data(),
                  .y = step.x,
                  .y_stride = hidden_size_,
                  .cols = hidden_size_,
                  .scale = scale_},
                 table_.in_head);
}

}  // namespace dovetail::worker
