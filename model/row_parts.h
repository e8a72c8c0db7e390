// RowParts: how the members of a segment share the rows of an op's matrices.
//
// An op with two products in a row (attention, an mlp, experts) is cut twice: the columns between
// the two by `inner`, the residual stream by `outer`. Each member has the rows of the first
// matrices that make its inner columns, and the rows of the last matrix that make its outer ones.
// Norms, biases, routers and other small weights are with every member. Pure functions of headers:
// the planner and the workers cut alike.
#ifndef DOVETAIL_MODEL_ROW_PARTS_H_
#define DOVETAIL_MODEL_ROW_PARTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/range.h"
#include "base/route.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::model {

// By member.
struct RowParts {
  std::vector<Range> kv_heads;  // of attention
  std::vector<Range> inner;     // of lm_head: tokens of the vocabulary
  std::vector<Range> outer;     // none of lm_head
};

// The parts of an op with op.rows. `last_type`: of its last matrix, whose blocks of activations
// stay whole; of lm_head it does not matter. Of a norm or a router there are none: every member
// computes all of it.
RowParts RowPartsOf(const ModelConfig& config, const Op& op, WeightType last_type);

// The same; the type is the file's.
RowParts RowPartsOf(const ModelConfig& config, const GgufFile& file, const Op& op);

// Why several workers cannot share the op's rows, as the end of a sentence; empty: they can.
std::string WhyNotSplit(const ModelConfig& config, const Op& op);

// What is shared out, for messages, and how many of them there are.
struct RowUnits {
  const char* name = "";  // "KV heads"
  int64_t count = 0;      // no more members than that; 0: any number
};
RowUnits RowUnitsOf(const ModelConfig& config, const GgufFile& file, const Op& op);

// Makes of the weights of a whole op those of the member that op.rows means. The specs are those of
// WeightsOf. InvalidArgument: the op cannot be shared, or not by so many.
absl::Status TakeRows(const ModelConfig& config, const GgufFile& file, const Op& op,
                      std::vector<WeightSpec>* specs);

// The KV cache of an attention layer, of the heads that op.rows means.
KvShape KvShapeOf(const ModelConfig& config, const Op& op);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ROW_PARTS_H_
