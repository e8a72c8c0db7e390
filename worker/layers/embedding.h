// Embedding: x = scale * table[token], for every row of the step. The table stays as the file has
// it.
#ifndef DOVETAIL_WORKER_LAYERS_EMBEDDING_H_
#define DOVETAIL_WORKER_LAYERS_EMBEDDING_H_

#include <cstdint>

#include "base/weight_type.h"
#include "worker/layers/layer.h"

namespace dovetail::worker {

class Embedding : public Layer {
 public:
  Embedding(const uint8_t* table, WeightType type, int32_t hidden_size, float scale);
  void Forward(StepContext& step) const override;

 private:
  const uint8_t* table_;
  WeightType type_;
  int32_t hidden_size_;
  float scale_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_EMBEDDING_H_
