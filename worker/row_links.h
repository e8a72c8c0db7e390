// RowLinks: this worker's links to the GPU workers before and after it on the route, in one epoch
// (docs/gpu_links.md).
//
// They come up while all workers connect: each sender offers a link, as the first message of the
// edge's ring; each receiver answers whether it can take it. With GpuLinks::kAuto what cannot be
// taken is no link, and rows go with the frames; otherwise it is an error. No side waits for
// another before it has offered all that it offers, so that any circle of edges comes up.
//
// Used by the executor's thread; goes before the exchange and the device do.
#ifndef DOVETAIL_WORKER_ROW_LINKS_H_
#define DOVETAIL_WORKER_ROW_LINKS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/gpu_links.h"
#include "transport/tensor_channel.h"
#include "worker/device/device.h"
#include "worker/device/nccl_links.h"
#include "worker/device/row_link.h"

namespace dovetail::worker {

struct RowLinkOptions {
  Device* device = nullptr;  // null: there are no links
  GpuLinks kind = GpuLinks::kHost;
  int num_slots = 1;
  int64_t slot_bytes = 0;
  absl::Duration timeout;         // of each wait while they come up
  std::function<bool()> aborted;  // the epoch has ended
};

class RowLinks {
 public:
  // Ends of rings to and from other workers, by their names.
  using Senders = std::map<std::string, transport::TensorSender*>;
  using Receivers = std::map<std::string, transport::TensorReceiver*>;
  static absl::StatusOr<std::unique_ptr<RowLinks>> Open(const std::string& worker,
                                                        const RowLinkOptions& options,
                                                        const Senders& to, const Receivers& from);

  // nullptr: there is none.
  RowSender* To(const std::string& worker) const;
  RowReceiver* From(const std::string& worker) const;

 private:
  explicit RowLinks(RowLinkOptions options) : options_(std::move(options)) {}
  absl::Status OfferTo(const std::string& edge, const std::string& peer,
                       transport::TensorSender* ring);
  absl::Status TakeFrom(const std::string& edge, const std::string& peer,
                        transport::TensorReceiver* ring);
  absl::Status HearFrom(const std::string& edge, const std::string& peer,
                        transport::TensorSender* ring);

  const RowLinkOptions options_;
  std::vector<std::unique_ptr<RowSender>> own_senders_;  // but NCCL's, which are in nccl_
  std::vector<std::unique_ptr<RowReceiver>> own_receivers_;
  std::map<std::string, RowSender*> senders_;
  std::map<std::string, RowReceiver*> receivers_;
  std::unique_ptr<NcclLinks> nccl_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_ROW_LINKS_H_
