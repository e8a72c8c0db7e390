// Embedding: x = scale * table[token], for every row of the step. The table is as the file has it,
// or the matrix of the head, which is there anyway.
#ifndef DOVETAIL_WORKER_LAYERS_EMBEDDING_H_
#define DOVETAIL_WORKER_LAYERS_EMBEDDING_H_

#include <cstdint>

#include "base/weight_type.h"
#include "worker/layers/layer.h"

namespace dovetail::worker {

class Embedding : public Layer {
 public:
  struct Table {
    const uint8_t* rows = nullptr;
    bool in_head = false;  // the head's matrix, as products read it
  };
  Embedding(const Table& table, WeightType type, int32_t hidden_size, float scale);
  void Forward(StepContext& step) const override;

 private:
  Table table_;
  WeightType type_;
  int32_t hidden_size_;
  float scale_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_EMBEDDING_H_
