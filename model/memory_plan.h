// MemoryPlan: the bytes that a worker will use, computed from headers alone.
//
// The coordinator refuses with it what does not fit; the worker sizes its segments and its workspace
// with the same functions, so that plan and allocation cannot drift apart. Pure functions.
#ifndef DOVETAIL_MODEL_MEMORY_PLAN_H_
#define DOVETAIL_MODEL_MEMORY_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/packed_layout.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::model {

// Where one weight lies in a worker's weight segment. Offsets are multiples of 64.
struct WeightSlot {
  Op op;
  WeightSpec spec;
  WeightType type = WeightType::kF32;
  int64_t offset = 0;
  int64_t bytes = 0;          // as packed (vectors: f32)
  int64_t stored_bytes = 0;   // as the file has it
};

// The slots of a worker that owns `ops`, in op order. A weight used by two ops of the same worker
// (tied embeddings) gets one slot each: the embedding is read row by row as stored, the head packed.
absl::StatusOr<std::vector<WeightSlot>> LayOutWeights(const ModelConfig& config,
                                                      const GgufFile& file,
                                                      absl::Span<const Op> ops,
                                                      PackedLayout layout);

// One KV block of one attention layer holds, for kKvBlockTokens tokens and all KV heads,
//   keys   [kv_head][head_dim][token]  then  values [kv_head][token][head_dim].
int64_t KvBytesPerBlockPerLayer(const ModelConfig& config, KvType type);

// The named buffers of a worker's step workspace; the worker carves them out of one allocation.
struct WorkspaceBuffer {
  const char* name;  // static string
  int64_t bytes = 0;
};
std::vector<WorkspaceBuffer> WorkspaceBuffers(const ModelConfig& config, absl::Span<const Op> ops,
                                              const StepShape& shape, int num_threads);

struct WorkerMemory {
  int64_t weights_stored = 0;
  int64_t weights_packed = 0;
  int64_t kv = 0;
  int64_t workspace = 0;
  int64_t communication = 0;  // rings that end at this worker
  int64_t runtime = 0;        // what the process needs before any model
  int64_t total() const { return weights_packed + kv + workspace + communication + runtime; }
};
absl::StatusOr<WorkerMemory> PlanWorkerMemory(const ModelConfig& config, const GgufFile& file,
                                              absl::Span<const Op> ops, const StepShape& shape,
                                              PackedLayout layout, int num_threads);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_MEMORY_PLAN_H_
