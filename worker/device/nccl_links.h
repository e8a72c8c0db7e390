// NcclLinks: the links by NCCL of one device in one epoch (docs/gpu_links.md).
//
// How they come up: the sender's side of each edge makes an id (NcclComm::MakeId()), which the
// wiring carries to the receiver's; each side adds all its links, which starts them, and then
// joins: Join() waits for no more than that the other sides have added theirs, so that any circle
// of edges comes up. The first Next() and Receive() wait for the other side's Join().
//
// What concerns all of them is done together, because CUDA may let one call that takes or gives
// back memory wait for all that runs on the device, a send among it which waits for another
// process: connecting comes after all have joined and in one group, and where not all are idle, all
// are aborted in one group before any memory goes. Rows on their way are then lost.
//
// Belongs to the thread of its device and goes before the device does.
#ifndef DOVETAIL_WORKER_DEVICE_NCCL_LINKS_H_
#define DOVETAIL_WORKER_DEVICE_NCCL_LINKS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/device.h"
#include "worker/device/nccl_comm.h"
#include "worker/device/row_link.h"

namespace dovetail::worker {

class NcclEnd;

class NcclLinks {
 public:
  explicit NcclLinks(Device* device);
  ~NcclLinks();
  NcclLinks(const NcclLinks&) = delete;
  NcclLinks& operator=(const NcclLinks&) = delete;

  // Start to join, and take all memory that the link needs; do not wait. What they return is owned
  // by this and can be used after Join(). `num_slots`: as many as there are messages on their way
  // at most. `slot_bytes`: of the longest.
  absl::StatusOr<RowSender*> AddSender(LinkEdge edge, const NcclId& id, int num_slots,
                                       int64_t slot_bytes);
  absl::StatusOr<RowReceiver*> AddReceiver(LinkEdge edge, const NcclId& id);
  // Once, after all were added. `timeout`: for each of them.
  absl::Status Join(absl::Duration timeout);

 private:
  bool AllIdle();

  Device& device_;
  std::vector<std::unique_ptr<NcclEnd>> ends_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_NCCL_LINKS_H_
