// NcclComm: one end of an NCCL communicator of two ranks, which is one edge: the sender is rank 0,
// the receiver rank 1.
//
// Non-blocking: no call waits for the other end. What NCCL still works on is asked for
// (Settled()), and until that is done nothing more may be posted. Calls for several communicators
// of a device that NCCL is to begin together are made in a group (nccl_links.h).
//
// Used by the thread of the device, which is CUDA's current one there.
#ifndef DOVETAIL_WORKER_DEVICE_NCCL_COMM_H_
#define DOVETAIL_WORKER_DEVICE_NCCL_COMM_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/nccl_api.h"
#include "worker/device/device.h"
#include "worker/device/link_wait.h"

namespace dovetail::worker {

// What both ends of an edge must know to find each other, once; the sender's side makes it.
using NcclId = transport::NcclUniqueId;

class NcclComm {
 public:
  enum class Role { kSender = 0, kReceiver = 1 };

  // The failures of transport::Nccl(), among others.
  static absl::StatusOr<NcclId> MakeId();
  // Starts to join, does not wait.
  static absl::StatusOr<std::unique_ptr<NcclComm>> Begin(LinkEdge edge, const NcclId& id,
                                                         Role role);
  // Ends what is still on its way, at once.
  ~NcclComm() { Abort(); }
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  const LinkEdge& edge() const { return edge_; }

  // Waits until the other end has joined too. kUnimplemented: NCCL does not join these two, such as
  // ends on one GPU.
  absl::Status Join(absl::Duration timeout);
  // Whether NCCL has taken all that was posted, so that its stream tells when it is done. Never
  // waits. kUnavailable: the other end is gone.
  absl::StatusOr<bool> Settled();
  // Rows to the other end, or from it, in the order of the calls on each side. Requires Settled().
  absl::Status Post(uint8_t* data, int64_t bytes, DeviceStream* stream);
  // After either nothing is posted. Finish() ends the communicator in order, for which nothing may
  // be on its way any more; it waits a second at most, and not for the other end.
  void Finish();
  void Abort();

 private:
  NcclComm(const transport::NcclApi& nccl, LinkEdge edge, Role role)
      : nccl_(nccl), edge_(std::move(edge)), role_(role) {}
  absl::Status ToStatus(transport::NcclResult result);

  const transport::NcclApi& nccl_;
  const LinkEdge edge_;
  const Role role_;
  transport::NcclCommHandle comm_ = nullptr;  // nullptr: ended
};

// Calls `fn`; what it posts or aborts, of whichever communicators, NCCL begins together.
absl::Status InNcclGroup(absl::FunctionRef<absl::Status()> fn);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_NCCL_COMM_H_
