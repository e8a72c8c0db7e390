#include "worker/peer_weights.h"

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/gguf/gguf_file.h"
#include "worker/weight_loader.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<PeerWeights>> PeerWeights::Map(const transport::WorkerPlan& plan,
                                                              const std::string& peer,
                                                              const std::string& path,
                                                              Device* device) {
  DT_ASSIGN_OR_RETURN(const std::unique_ptr<model::GgufFile> file,
                      model::GgufFile::Open(plan.model_path));
  DT_ASSIGN_OR_RETURN(WeightLayout layout, LayOutStore(plan, *file, peer, PackedLayout::kP16));
  auto memory = Memory::MapComplete(path, layout.key, layout.bytes);
  if (!memory.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the experts of ", peer, " cannot be streamed: ", memory.status().message(),
                     "; they must be packed, and in the run directory (weight_memory: shared)"));
  }
  auto weights = absl::WrapUnique(new PeerWeights());
  weights->store_ = std::move(layout.store);
  weights->store_->weights = *std::move(memory);
  weights->device_ = device;
  const uint8_t* const data = weights->store_->weights->data();
  const absl::Status pinned = device->RegisterHost(data, static_cast<int64_t>(layout.bytes));
  if (pinned.ok()) {
    weights->registered_ = data;
  } else {
    LogWarn(absl::StrCat("the experts of ", peer, " are streamed more slowly: ", pinned.message()));
  }
  return weights;
}

PeerWeights::~PeerWeights() {
  if (registered_ != nullptr) device_->UnregisterHost(registered_);
}

}  // namespace dovetail::worker
