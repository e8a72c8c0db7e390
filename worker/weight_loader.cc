#include "worker/weight_loader.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/packed_layout.h"
#include "base/status_macros.h"
#include "model/gguf/gguf_file.h"
#include "model/row_parts.h"
#include "worker/pack_target.h"
#include "worker/source_reader.h"
#include "worker/transpose.h"
#include "worker/weight_cache.h"

namespace dovetail::worker {
namespace {

// Changes whenever the bytes in a segment mean something else: an older segment is then not reused.
constexpr int kSegmentVersion = 5;

// File bytes between two progress reports; the pool packs that much in one phase.
constexpr int64_t kSliceBytes = int64_t{16} << 20;

uint64_t Hash(const std::string& text) { return XXH3_64bits(text.data(), text.size()); }

uint64_t WeightsKey(uint64_t fingerprint, const WeightStore& store, PackedLayout layout) {
  std::string text =
      absl::StrCat(kSegmentVersion, " weights ", fingerprint, " ", PackedLayoutName(layout));
  for (const model::WeightSlot& slot : store.slots) {
    absl::StrAppend(&text, " ", slot.spec.tensor, ":", static_cast<int>(slot.spec.role), ":",
                    slot.spec.first_expert, ":", slot.spec.tensor_first, ":", slot.offset, ":",
                    slot.bytes);
  }
  return Hash(text);
}

uint64_t KvKey(uint64_t fingerprint, const WeightStore& store, const StepShape& shape) {
  std::string text =
      absl::StrCat(kSegmentVersion, " kv by part ", fingerprint, " ", shape.num_kv_blocks, "+",
                   shape.num_swap_blocks, " ", kKvBlockTokens);
  for (const Op& op : store.ops) {
    if (op.kind != OpKind::kAttention) continue;
    absl::StrAppend(&text, " ", op.layer, ":", KvTypeName(shape.KvTypeOf(op.layer)), ":",
                    model::KvShapeOf(store.config, op).num_heads);
  }
  return Hash(text);
}

class Packer {
 public:
  Packer(const model::GgufFile& file, const LoadOptions& options, WeightStore* store,
         ThreadPool* pool)
      : file_(file), options_(options), store_(store), pool_(pool) {
    for (const model::WeightSlot& slot : store->slots) {
      if (slot.in_place || slot.in_head) continue;
      slots_.push_back(&slot);
      total_ += slot.stored_bytes;
    }
  }

  // Has the file read from now on; otherwise PackAll() begins with it.
  void StartReading() {
    std::vector<SourceReader::Part> parts;
    for (const model::WeightSlot* slot : slots_) AddParts(*slot, &parts);
    reader_ = std::make_unique<SourceReader>(file_, std::move(parts));
  }

  absl::Status PackAll() {
    if (reader_ == nullptr) StartReading();
    DT_ASSIGN_OR_RETURN(target_, PackTarget::Create(store_->weights.get(), options_.device));
    for (const model::WeightSlot* slot : slots_) DT_RETURN_IF_ERROR(PackSlot(*slot));
    reader_.reset();
    DT_RETURN_IF_ERROR(target_->Finish());
    store_->weights->MarkComplete();
    return absl::OkStatus();
  }

 private:
  void AddParts(const model::WeightSlot& slot, std::vector<SourceReader::Part>* parts) const {
    const model::GgufTensor* const tensor = file_.FindTensor(slot.spec.tensor);
    const int64_t pieces = slot.spec.is_vector ? 1 : std::max<int64_t>(1, slot.spec.experts);
    const int64_t bytes = slot.stored_bytes / pieces;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t begin = slot.source_offset + i * slot.source_stride;
      parts->push_back({tensor, begin, begin + bytes});
    }
  }

  absl::Status PackSlot(const model::WeightSlot& slot) {
    const model::GgufTensor& tensor = *file_.FindTensor(slot.spec.tensor);
    const int64_t experts = std::max<int64_t>(1, slot.spec.experts);
    if (slot.spec.is_vector) {
      DT_RETURN_IF_ERROR(PackVectors(slot));
      done_ += slot.stored_bytes;
    } else if (slot.spec.transposed) {
      DT_RETURN_IF_ERROR(PackTransposed(slot, tensor));
      done_ += slot.stored_bytes;
    } else {
      for (int64_t i = 0; i < experts; ++i) {
        DT_RETURN_IF_ERROR(PackMatrix(slot, SourceOf(slot, i), slot.offset + i * slot.stride()));
      }
    }
    reader_->SetPacked(static_cast<int64_t>(done_));
    file_.DropPages(tensor);
    return absl::OkStatus();
  }

  // The stored rows of expert, or head, `i` of the slot.
  const uint8_t* SourceOf(const model::WeightSlot& slot, int64_t i) const {
    return file_.Data(*file_.FindTensor(slot.spec.tensor)).data() + slot.source_offset +
           i * slot.source_stride;
  }

  // Threads share the heads, of which a piece has as many as there is room for.
  absl::Status PackTransposed(const model::WeightSlot& slot, const model::GgufTensor& tensor) {
    const model::WeightSpec& spec = slot.spec;
    const int64_t stride = slot.stride();
    const int64_t at_once = std::clamp<int64_t>(target_->max_bytes() / stride, 1, spec.experts);
    for (int64_t first = 0; first < spec.experts; first += at_once) {
      const int64_t count = std::min(at_once, spec.experts - first);
      DT_ASSIGN_OR_RETURN(uint8_t* const dst,
                          target_->Next(slot.offset + first * stride, count * stride));
      pool_->Run([&](int idx, int n) {
        const Range part = Slice(count, idx, n);
        for (int64_t i = part.begin; i < part.end; ++i) {
          const std::vector<uint8_t> rows =
              TransposeRows(*options_.kernels, tensor.type, SourceOf(slot, first + i),
                            spec.stored_rows(), spec.stored_cols());
          // Of floats, which are not packed.
          options_.kernels->pack(slot.type, rows.data(), spec.rows, spec.cols, 0, spec.rows,
                                 dst + i * stride);
        }
      });
    }
    return absl::OkStatus();
  }

  // The kernel that dequantises embedding rows makes f32 of any type.
  absl::Status PackVectors(const model::WeightSlot& slot) {
    const int32_t cols = static_cast<int32_t>(slot.spec.cols);
    const int64_t rows = std::max<int64_t>(1, slot.spec.experts);
    const auto bytes = static_cast<int64_t>(sizeof(float)) * rows * cols;
    DT_ASSIGN_OR_RETURN(uint8_t* const dst, target_->Next(slot.offset, bytes));
    auto* const floats = reinterpret_cast<float*>(dst);
    for (int32_t row = 0; row < rows; ++row) {
      options_.kernels->embedding({.table = SourceOf(slot, 0),
                                   .type = slot.type,
                                   .row_bytes = StoredBytes(slot.type, cols),
                                   .tokens = &row,
                                   .y = floats + int64_t{row} * cols,
                                   .y_stride = cols,
                                   .cols = cols},
                                  0, 1);
    }
    if (options_.device != nullptr && slot.spec.role == model::WeightRole::kScale) {
      store_->scales[slot.offset].assign(floats, floats + rows * cols);
    }
    return absl::OkStatus();
  }

  // To `offset`, in pieces of whole panels, so that threads and pieces never share one.
  absl::Status PackMatrix(const model::WeightSlot& slot, const uint8_t* src, int64_t offset) {
    const WeightType type = slot.type;
    const bool is_packed = slot.op.kind != OpKind::kEmbedding && !IsFloat(type);
    const int64_t row_bytes = StoredBytes(type, slot.spec.cols);
    const int64_t packed_row_bytes = is_packed ? slot.spec.cols / InfoOf(type).block_elements *
                                                     PackedBlockBytes(store_->layout, type)
                                               : row_bytes;
    const int64_t piece_rows = std::max<int64_t>(1, std::min(kSliceBytes, target_->max_bytes()) /
                                                        (row_bytes * kPanelRows)) *
                               kPanelRows;
    for (int64_t first = 0; first < slot.spec.rows; first += piece_rows) {
      const int64_t rows = std::min(piece_rows, slot.spec.rows - first);
      const uint8_t* const from = src + first * row_bytes;
      const int64_t to = offset + first * packed_row_bytes;
      DT_RETURN_IF_ERROR(
          is_packed ? PackPiece(slot, from, rows, to, packed_row_bytes)
                    : CopyPiece(from, rows, row_bytes, target_->Next(to, rows * row_bytes)));
      done_ += rows * row_bytes;
      reader_->SetPacked(static_cast<int64_t>(done_));
      if (options_.progress && !options_.progress(done_, total_)) {
        return absl::CancelledError("loading was stopped");
      }
    }
    return absl::OkStatus();
  }

  // Panels, made here or where the rows go.
  absl::Status PackPiece(const model::WeightSlot& slot, const uint8_t* src, int64_t rows,
                         int64_t offset, int64_t packed_row_bytes) {
    const int64_t cols = slot.spec.cols;
    if (target_->packs_rows()) {
      return CopyPiece(src, rows, StoredBytes(slot.type, cols),
                       target_->NextRows(slot.type, rows, cols, offset));
    }
    DT_ASSIGN_OR_RETURN(uint8_t* const dst, target_->Next(offset, rows * packed_row_bytes));
    ShareRows(rows, [&](int64_t begin, int64_t end) {
      options_.kernels->pack(slot.type, src, rows, cols, begin, end, dst);
    });
    return absl::OkStatus();
  }

  absl::Status CopyPiece(const uint8_t* src, int64_t rows, int64_t row_bytes,
                         absl::StatusOr<uint8_t*> to) {
    if (!to.ok()) return to.status();
    ShareRows(rows, [&](int64_t begin, int64_t end) {
      std::memcpy(*to + begin * row_bytes, src + begin * row_bytes, (end - begin) * row_bytes);
    });
    return absl::OkStatus();
  }

  // Calls run(begin, end) in each thread, of whole panels' rows.
  template <typename Run>
  void ShareRows(int64_t rows, const Run& run) {
    pool_->Run([&](int idx, int n) {
      const Range part = Slice((rows + kPanelRows - 1) / kPanelRows, idx, n);
      const int64_t end = std::min(part.end * kPanelRows, rows);
      if (part.begin * kPanelRows < end) run(part.begin * kPanelRows, end);
    });
  }

  const model::GgufFile& file_;
  const LoadOptions& options_;
  WeightStore* store_;
  ThreadPool* pool_;
  std::unique_ptr<PackTarget> target_;
  std::vector<const model::WeightSlot*> slots_;  // those that are packed
  std::unique_ptr<SourceReader> reader_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

bool UsesCache(const LoadOptions& options) {
  return !options.cache_dir.empty() && options.device == nullptr;
}

// From the cache, or from the model's file and then into the cache. Whatever is wrong with the
// cache costs time and nothing else.
absl::Status FillWeights(const model::GgufFile& file, const LoadOptions& options,
                         WeightStore* store, ThreadPool* pool, Packer* packer) {
  if (!UsesCache(options)) return packer->PackAll();
  const std::string path = WeightCachePath(options.cache_dir, file, options.worker);
  const uint64_t key = WeightCacheKey(store->weights->key(), file);
  const absl::Span<uint8_t> weights(store->weights->data(), store->weights->bytes());
  const absl::Status found = ReadWeightCache(path, key, weights, pool, options.progress);
  if (found.ok()) {
    store->from_cache = true;
    store->weights->MarkComplete();
    return absl::OkStatus();
  }
  if (absl::IsCancelled(found)) return found;
  if (!absl::IsNotFound(found)) {
    LogWarn(absl::StrCat("weight cache: ", found.message(), "; the weights are packed anew"));
    std::memset(weights.data(), 0, weights.size());
  }
  DT_RETURN_IF_ERROR(packer->PackAll());
  const absl::Status written = WriteWeightCache(path, key, weights, pool);
  if (!written.ok()) LogWarn(absl::StrCat("weight cache: not written: ", written.message()));
  return absl::OkStatus();
}

PackedLayout LayoutOf(const LoadOptions& options) {
  if (options.device != nullptr) return PackedLayout::kP16Device;
  return options.in_place ? PackedLayout::kInPlace : options.kernels->layout;
}

absl::Status OpenKv(const transport::WorkerPlan& plan, const std::string& path, Device* device,
                    std::unique_ptr<Memory> previous, ThreadPool* pool, WeightStore* store) {
  const int64_t bytes = model::KvBytes(store->config, store->ops, plan.step_shape);
  if (bytes == 0) return absl::OkStatus();
  const uint64_t key = KvKey(plan.model_fingerprint, *store, plan.step_shape);
  if (device != nullptr) {
    DT_ASSIGN_OR_RETURN(store->kv, Memory::OpenOnDevice(device, key, bytes, std::move(previous)));
  } else {
    DT_ASSIGN_OR_RETURN(store->kv, Memory::Open(path, key, bytes, std::move(previous), pool));
  }
  if (!store->kv->was_complete()) store->kv->MarkComplete();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WeightLayout> LayOutStore(const transport::WorkerPlan& plan,
                                         const model::GgufFile& file, const std::string& worker,
                                         PackedLayout layout) {
  if (file.fingerprint() != plan.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        plan.model_path, ": not the file that the plan was made for (fingerprint ",
        absl::Hex(file.fingerprint()), ", the plan has ", absl::Hex(plan.model_fingerprint), ")"));
  }
  WeightLayout out;
  out.store = std::make_unique<WeightStore>();
  WeightStore& store = *out.store;
  DT_ASSIGN_OR_RETURN(store.config, model::LoadModelConfig(file));
  store.ops = OwnedOps(plan.route, worker);
  store.layout = layout;
  DT_ASSIGN_OR_RETURN(store.slots, model::LayOutWeights(store.config, file, store.ops, layout));
  out.bytes = 64;  // a worker without weights still has a segment
  for (const model::WeightSlot& slot : store.slots) {
    out.bytes = std::max(out.bytes, static_cast<uint64_t>(slot.offset + slot.bytes));
  }
  out.key = WeightsKey(plan.model_fingerprint, store, layout);
  return out;
}

absl::StatusOr<std::unique_ptr<WeightStore>> LoadWeights(const transport::WorkerPlan& plan,
                                                         const LoadOptions& options,
                                                         ThreadPool* pool,
                                                         std::unique_ptr<WeightStore> previous) {
  DT_ASSIGN_OR_RETURN(std::unique_ptr<model::GgufFile> file,
                      model::GgufFile::Open(plan.model_path));
  const PackedLayout packed = LayoutOf(options);
  DT_ASSIGN_OR_RETURN(WeightLayout layout, LayOutStore(plan, *file, options.worker, packed));
  std::unique_ptr<WeightStore> store = std::move(layout.store);
  const uint64_t key = layout.key, bytes = layout.bytes;
  std::unique_ptr<Memory> old_weights, old_kv;
  std::map<int64_t, std::vector<float>> old_scales;
  if (previous != nullptr) {
    old_weights = std::move(previous->weights);
    old_kv = std::move(previous->kv);
    old_scales = std::move(previous->scales);
    previous.reset();
  }
  Packer packer(*file, options, store.get(), pool);
  // Nothing but the file has the weights: it is read while memory is made.
  if (old_weights == nullptr && options.weights_path.empty() && !UsesCache(options)) {
    packer.StartReading();
  }
  if (options.device != nullptr) {
    DT_ASSIGN_OR_RETURN(store->weights,
                        Memory::OpenOnDevice(options.device, key, bytes, std::move(old_weights)));
  } else {
    DT_ASSIGN_OR_RETURN(store->weights, Memory::Open(options.weights_path, key, bytes,
                                                     std::move(old_weights), pool));
  }
  const auto open_kv = [&] {
    return OpenKv(plan, options.kv_path, options.device, std::move(old_kv), pool, store.get());
  };
  // A GPU has room for it when everything that loads is gone; a host makes it while it reads.
  if (options.device == nullptr) DT_RETURN_IF_ERROR(open_kv());
  store->reattached = store->weights->was_complete();
  if (store->reattached) {
    store->scales = std::move(old_scales);
  } else {
    DT_RETURN_IF_ERROR(FillWeights(*file, options, store.get(), pool, &packer));
  }
  if (options.device != nullptr) DT_RETURN_IF_ERROR(open_kv());
  const bool reads_file = std::any_of(store->slots.begin(), store->slots.end(),
                                      [](const model::WeightSlot& slot) { return slot.in_place; });
  if (reads_file) store->file = std::move(file);
  return store;
}

}  // namespace dovetail::worker
