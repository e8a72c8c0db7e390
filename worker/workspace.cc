#include "worker/workspace.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/kernel_table.h"
#include "model/memory_plan.h"

namespace dovetail::worker {
namespace {

// Hands out the named parts of one allocation.
class Carver {
 public:
  Carver(uint8_t* memory, const std::vector<model::WorkspaceBuffer>& buffers)
      : memory_(memory), buffers_(buffers) {}

  // The buffer `name`, or nullptr where the plan has none; `bytes`, if given, gets its size.
  template <typename T>
  T* Take(absl::string_view name, int64_t* bytes = nullptr) const {
    int64_t offset = 0;
    for (const model::WorkspaceBuffer& buffer : buffers_) {
      if (buffer.name == name) {
        if (bytes != nullptr) *bytes = buffer.bytes;
        return reinterpret_cast<T*>(memory_ + offset);
      }
      offset += buffer.bytes;
    }
    return nullptr;
  }

 private:
  uint8_t* memory_;
  const std::vector<model::WorkspaceBuffer>& buffers_;
};

QuantizedBuffer CarveForm(const Carver& carver, const std::string& name) {
  return {carver.Take<int8_t>(name + "_q8"), carver.Take<float>(name + "_d"),
          carver.Take<int16_t>(name + "_bsum")};
}

ActivationBuffers CarveForms(const Carver& carver, const std::string& name) {
  return {CarveForm(carver, name), CarveForm(carver, name + "2"), CarveForm(carver, name + "3")};
}

ExpertBuffers CarveExperts(const Carver& carver) {
  int64_t bytes = 0;
  float* y = carver.Take<float>("partials", &bytes);
  return {.router = carver.Take<float>("router"),
          .shared_gate = carver.Take<float>("shared_gate"),
          .slot_experts = carver.Take<int32_t>("slot_experts"),
          .slot_weights = carver.Take<float>("slot_weights"),
          .slot_sources = carver.Take<int32_t>("slot_sources"),
          .pair_rows = carver.Take<int32_t>("pair_rows"),
          .begin = carver.Take<int32_t>("expert_begin"),
          .order = carver.Take<int32_t>("expert_order"),
          .gate = carver.Take<float>("expert_gate"),
          .up = carver.Take<float>("expert_up"),
          .y = y,
          .y_floats = bytes / static_cast<int64_t>(sizeof(float)),
          .in_act = CarveForms(carver, "expert_in"),
          .act = CarveForms(carver, "expert_act")};
}

DeviceTables CarveTables(const Carver& carver) {
  DeviceTables tables;
  int64_t bytes = 0;
  tables.sequences = carver.Take<kernels::SequenceRows>("step_sequences");
  tables.blocks = carver.Take<int32_t>("step_blocks");
  tables.rows = carver.Take<int32_t>("step_rows");
  tables.flags = carver.Take<int32_t>("op_flags", &bytes);
  tables.num_flags = tables.flags == nullptr ? 0 : bytes / static_cast<int64_t>(sizeof(int32_t));
  tables.tokens = carver.Take<int32_t>("step_tokens");
  tables.best_tokens = carver.Take<int32_t>("best_tokens");
  tables.groups = carver.Take<kernels::MatmulGroup>("expert_groups", &bytes);
  if (tables.groups != nullptr) {
    tables.max_groups = bytes / static_cast<int64_t>(sizeof(kernels::MatmulGroup));
  }
  tables.num_groups = carver.Take<int32_t>("expert_num_groups");
  tables.places = carver.Take<int32_t>("expert_places");
  return tables;
}

int64_t BytesOf(const std::vector<model::WorkspaceBuffer>& buffers) {
  int64_t bytes = 0;
  for (const model::WorkspaceBuffer& buffer : buffers) bytes += buffer.bytes;
  return std::max<int64_t>(bytes, 64);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workspace>> Workspace::Create(
    const model::ModelConfig& config, absl::Span<const Op> ops, const StepShape& shape,
    PackedLayout layout, int num_threads, Device* device, absl::Span<const Op> streamed) {
  const std::vector<model::WorkspaceBuffer> buffers =
      model::WorkspaceBuffers(config, ops, shape, layout, num_threads, streamed);
  std::unique_ptr<Workspace> ws(new Workspace());
  ws->bytes_ = static_cast<size_t>(BytesOf(buffers));
  void* memory = nullptr;
  if (device != nullptr) {
    DT_ASSIGN_OR_RETURN(ws->buffer_, device->Allocate(BytesOf(buffers)));
    memory = ws->buffer_.data();
  } else {
    // With its pages, so that nothing grows in a step.
    memory = mmap(nullptr, ws->bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot reserve ", ws->bytes_, " bytes of workspace: ", strerror(errno)));
    }
    ws->memory_ = memory;
  }

  const Carver carver(static_cast<uint8_t*>(memory), buffers);
  int64_t bytes = 0;
  ws->x = carver.Take<float>("x", &bytes);
  ws->x_floats = bytes / static_cast<int64_t>(sizeof(float));
  ws->normed = carver.Take<float>("normed");
  ws->q = carver.Take<float>("q");
  ws->k = carver.Take<float>("k");
  ws->v = carver.Take<float>("v");
  ws->attn = carver.Take<float>("attn");
  ws->q_lora = carver.Take<float>("q_lora");
  ws->q_latent = carver.Take<float>("q_latent");
  ws->latent = carver.Take<float>("latent");
  ws->head_act = CarveForms(carver, "head");
  ws->gate = carver.Take<float>("gate");
  ws->up = carver.Take<float>("up");
  ws->block_counts = carver.Take<std::atomic<int32_t>>("block_counts");
  ws->normed_act = CarveForms(carver, "normed");
  ws->inner_act = CarveForms(carver, "act");
  ws->cos_sin = carver.Take<float>("cos_sin");
  ws->cos_sin_local = carver.Take<float>("cos_sin_local");
  ws->experts = CarveExperts(carver);
  ws->attn_scratch = carver.Take<float>("attn_scratch", &bytes);
  ws->attn_scratch_floats = kernels::AttentionScratchFloats(config.kv_shape());
  // The plan counts with its own figure, because model/ does not know the kernels.
  if (ws->attn_scratch != nullptr) {
    DT_CHECK_LE(ws->attn_scratch_floats * num_threads * 4, bytes);
  }
  ws->attn_parts = carver.Take<float>("attn_parts", &bytes);
  if (ws->attn_parts != nullptr) ws->attn_parts_floats = bytes / sizeof(float);
  ws->panels = carver.Take<uint8_t>("panels", &bytes);
  if (ws->panels != nullptr) ws->panels_bytes = bytes / num_threads;
  ws->stream = carver.Take<uint8_t>("stream");
  ws->stream_bytes = shape.stream_bytes;
  ws->logit_rows = carver.Take<float>("logit_rows");
  ws->logits = carver.Take<float>("logits");
  ws->probs = carver.Take<float>("probs");
  ws->ids = carver.Take<int32_t>("ids");
  ws->tables = CarveTables(carver);
  return ws;
}

absl::StatusOr<std::unique_ptr<Staging>> Staging::Create(const model::ModelConfig& config,
                                                         absl::Span<const Op> ops,
                                                         const StepShape& shape, int num_threads,
                                                         Device* device) {
  const std::vector<model::WorkspaceBuffer> buffers =
      model::StagingBuffers(config, ops, shape, PackedLayout::kP16Device, num_threads);
  auto staging = std::make_unique<Staging>();
  DT_ASSIGN_OR_RETURN(staging->buffer, device->AllocateHost(BytesOf(buffers)));
  const Carver carver(staging->buffer.data(), buffers);
  int64_t bytes = 0;
  HostRows& rows = staging->rows;
  rows.x = carver.Take<float>("x", &bytes);
  rows.x_floats = bytes / static_cast<int64_t>(sizeof(float));
  rows.slot_experts = carver.Take<int32_t>("slot_experts");
  rows.slot_weights = carver.Take<float>("slot_weights");
  rows.y = carver.Take<float>("partials", &bytes);
  rows.y_floats = rows.y == nullptr ? 0 : bytes / static_cast<int64_t>(sizeof(float));
  staging->expert_begin = carver.Take<int32_t>("expert_begin");
  rows.expert_begin = staging->expert_begin;
  staging->partial_rows = carver.Take<int32_t>("partial_rows");
  rows.logits = carver.Take<float>("logits");
  rows.probs = carver.Take<float>("probs");
  rows.ids = carver.Take<int32_t>("ids");
  staging->tables = CarveTables(carver);
  rows.best_tokens = staging->tables.best_tokens;
  staging->cos_sin = carver.Take<float>("cos_sin");
  staging->cos_sin_local = carver.Take<float>("cos_sin_local");
  staging->gather = carver.Take<uint8_t>("gather", &bytes);
  if (staging->gather != nullptr) staging->gather_bytes = bytes;
  return staging;
}

Workspace::~Workspace() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

}  // namespace dovetail::worker
