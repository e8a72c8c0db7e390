#include "worker/layers/embedding.h"

namespace dovetail::worker {

Embedding::Embedding(const uint8_t* table, WeightType type, int32_t hidden_size, float scale)
    : table_(table), type_(type), hidden_size_(hidden_size), scale_(scale) {}

void Embedding::Forward(StepContext& step) const {
  const kernels::EmbeddingArgs args = {.table = table_,
                                       .type = type_,
                                       .row_bytes = StoredBytes(type_, hidden_size_),
                                       .tokens = step.tokens.data(),
                                       .y = step.x,
                                       .y_stride = hidden_size_,
                                       .cols = hidden_size_,
                                       .scale = scale_};
  step.x_rows = step.rows;
  ForRows(step, step.rows, hidden_size_, [&](int64_t begin, int64_t end) {
    step.kernels.embedding(args, begin, end);
    CheckFinite(step, step.x + begin * hidden_size_, hidden_size_, end - begin, 0, hidden_size_);
  });
}

}  // namespace dovetail::worker
