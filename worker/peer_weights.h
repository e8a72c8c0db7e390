// PeerWeights: the packed weights of a CPU worker of the same host, as another worker's process
// reads them: its segment of the run directory, mapped, and pinned for a GPU's copies where the
// driver allows it.
//
// Mapped when all workers have loaded. Stays valid when the owner ends: a segment is a file, and
// one with other content is another file. Made and used by the executor's thread; `device` outlives
// it.
#ifndef DOVETAIL_WORKER_PEER_WEIGHTS_H_
#define DOVETAIL_WORKER_PEER_WEIGHTS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "transport/worker_plan.h"
#include "worker/device/device.h"
#include "worker/weight_store.h"

namespace dovetail::worker {

class PeerWeights {
 public:
  // `path`: of the peer's segment. kFailedPrecondition: it is not there, with what to do.
  static absl::StatusOr<std::unique_ptr<PeerWeights>> Map(const transport::WorkerPlan& plan,
                                                          const std::string& peer,
                                                          const std::string& path, Device* device);
  ~PeerWeights();

  const WeightStore& store() const { return *store_; }

 private:
  PeerWeights() = default;
  std::unique_ptr<WeightStore> store_;
  Device* device_ = nullptr;
  const uint8_t* registered_ = nullptr;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_PEER_WEIGHTS_H_
