// Workspace: every buffer that a step writes, carved out of one allocation when a plan is loaded,
// in the memory of the device that computes; Staging: what a GPU worker's host has of it.
//
// The sizes are those of model::WorkspaceBuffers, which the coordinator's memory plan counts:
// nothing is allocated in a step. Pointers are null where the worker's ops do not need the buffer.
// Written by the executor's thread and its pool.
#ifndef DOVETAIL_WORKER_WORKSPACE_H_
#define DOVETAIL_WORKER_WORKSPACE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/packed_layout.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "kernels/cuda/device_table.h"
#include "kernels/ops.h"
#include "model/model_config.h"
#include "worker/device/device.h"

namespace dovetail::worker {

// Activations in the quantised form of one block size.
struct QuantizedBuffer {
  int8_t* q = nullptr;
  float* d = nullptr;
  int16_t* bsum = nullptr;
};

// The forms of one input of products.
struct ActivationBuffers {
  QuantizedBuffer block32;
  QuantizedBuffer block256;
  QuantizedBuffer block16;
};

// What layers with experts need. Pairs of a row and one of its experts are sorted by expert, in the
// order in which the route comes to the experts, so that all workers number them in the same way; P
// of them belong to experts of this worker.
struct ExpertBuffers {
  float* router = nullptr;          // [rows, experts]: logits, then scores
  float* shared_gate = nullptr;     // [rows]
  int32_t* slot_experts = nullptr;  // [rows, experts used]: the experts of a row, best first
  float* slot_weights = nullptr;    // [rows, slots]: with the shared expert's, the last
  int32_t* slot_sources = nullptr;  // [rows, slots]: the row of y that belongs to it
  int32_t* pair_rows = nullptr;     // [P]
  int32_t* begin = nullptr;         // [experts + 1]: the first pair of each expert
  int32_t* order = nullptr;         // [own experts + 1]: those with rows, most rows first, then -1
  float* gate = nullptr;            // [P, expert width]
  float* up = nullptr;
  // [rows, hidden] that the shared expert made, if there is one, then a row for each pair. Frames
  // bring the rows that other workers made.
  float* y = nullptr;
  int64_t y_floats = 0;      // room in y
  ActivationBuffers in_act;  // [P, hidden]: inputs in the order of pairs
  ActivationBuffers act;     // [P, expert width]
};

// What a GPU worker's kernels read besides (model::WorkspaceBuffers).
struct DeviceTables {
  kernels::SequenceRows* sequences = nullptr;
  int32_t* blocks = nullptr;  // of the sequences, one after another
  int32_t* rows = nullptr;    // whose logits are wanted
  int32_t* flags = nullptr;   // by op: whether it made a value that is not finite
  int64_t num_flags = 0;
  int32_t* tokens = nullptr;       // [rows]
  int32_t* best_tokens = nullptr;  // [logit rows]: of the largest logit
  kernels::MatmulGroup* groups = nullptr;
  int64_t max_groups = 0;
  int32_t* num_groups = nullptr;
  int32_t* places = nullptr;  // of layers with experts: MoeWeights::place_of
};

// What frames bring and take, and what tokens are drawn from: in the host's memory. A CPU worker's
// are its workspace's.
struct HostRows {
  float* x = nullptr;  // [rows, hidden]
  int64_t x_floats = 0;
  int32_t* slot_experts = nullptr;
  float* slot_weights = nullptr;
  float* y = nullptr;  // ExpertBuffers::y
  int64_t y_floats = 0;
  const int32_t* expert_begin = nullptr;  // ExpertBuffers::begin
  float* logits = nullptr;
  float* probs = nullptr;  // [num_threads, vocab]
  int32_t* ids = nullptr;  // [num_threads, vocab]
  // [logit rows]: where a device has looked for the largest logit; null: the sampler does.
  const int32_t* best_tokens = nullptr;
};

class Workspace {
 public:
  static absl::StatusOr<std::unique_ptr<Workspace>> Create(const model::ModelConfig& config,
                                                           absl::Span<const Op> ops,
                                                           const StepShape& shape,
                                                           PackedLayout layout, int num_threads,
                                                           Device* device = nullptr,
                                                           absl::Span<const Op> streamed = {});
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  float* x = nullptr;       // [rows, hidden]: the residual stream; frames arrive here
  float* normed = nullptr;  // [rows, hidden]
  float* q = nullptr;       // [rows, heads * head_dim]
  float* k = nullptr;       // [rows, kv_heads * head_dim]
  float* v = nullptr;
  float* attn = nullptr;  // [rows, heads * head_dim]
  // Of latent attention, where k is [rows, latent + rotated dimensions].
  float* q_lora = nullptr;     // [rows, q_lora_rank]
  float* q_latent = nullptr;   // [tile rows, heads * (latent + rotated dimensions)]
  float* latent = nullptr;     // [tile rows, heads * latent dimensions]
  ActivationBuffers head_act;  // of what each head multiplies, [tile rows * heads, ..]
  float* gate = nullptr;       // [rows, intermediate], of dense layers and shared experts
  float* up = nullptr;
  std::atomic<int32_t>* block_counts = nullptr;  // of a layer's gates (BlockCounter)
  ExpertBuffers experts;
  // Two inputs, because threads that are ahead in a phase write the second one while others still
  // read the first.
  ActivationBuffers normed_act;    // of what norms make, [rows, hidden]
  ActivationBuffers inner_act;     // of what attention and the activation function make
  float* cos_sin = nullptr;        // [rows, rope_dim]
  float* cos_sin_local = nullptr;  // the same for layers with a window, where it differs
  float* attn_scratch = nullptr;   // [num_threads, attn_scratch_floats]
  int64_t attn_scratch_floats = 0;
  float* attn_parts = nullptr;  // of contexts that threads share (AttentionArgs::parts)
  int64_t attn_parts_floats = 0;
  uint8_t* panels = nullptr;  // [num_threads, panels_bytes]: of matrices that are read in place
  int64_t panels_bytes = 0;
  float* logit_rows = nullptr;  // [logit rows, hidden]: what the last norm makes
  float* logits = nullptr;      // [logit rows, vocab]
  float* probs = nullptr;       // [num_threads, vocab]
  int32_t* ids = nullptr;       // [num_threads, vocab]

  uint8_t* stream = nullptr;  // two buffers for experts of other workers
  int64_t stream_bytes = 0;   // of each

  int64_t x_floats = 0;  // room in x
  DeviceTables tables;
  int64_t bytes() const { return static_cast<int64_t>(bytes_); }

 private:
  Workspace() = default;
  void* memory_ = nullptr;  // of the host
  DeviceBuffer buffer_;     // of a GPU
  size_t bytes_ = 0;
};

// model::StagingBuffers: the host's side of what goes to and from a GPU in a step.
struct Staging {
  static absl::StatusOr<std::unique_ptr<Staging>> Create(const model::ModelConfig& config,
                                                         absl::Span<const Op> ops,
                                                         const StepShape& shape, int num_threads,
                                                         Device* device);
  HostRows rows;
  DeviceTables tables;
  float* cos_sin = nullptr;
  float* cos_sin_local = nullptr;
  int32_t* expert_begin = nullptr;
  int32_t* partial_rows = nullptr;  // that came with the frame
  uint8_t* gather = nullptr;
  int64_t gather_bytes = 0;
  DeviceBuffer buffer;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_WORKSPACE_H_
