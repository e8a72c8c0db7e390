#include "worker/row_links.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/device/ipc_link.h"

namespace dovetail::worker {
namespace {

constexpr uint32_t kTaken = 1, kRefused = 2;

// The first message of an edge. `kind` is kHost where the sender has nothing to offer.
struct Offer {
  GpuLinks kind = GpuLinks::kHost;
  uint32_t reserved = 0;
  IpcOffer ipc;
  NcclId nccl = {};
};

// NCCL writes to memory of AllocateLink() alone.
class StagedReceiver : public RowReceiver {
 public:
  StagedReceiver(Device* device, RowReceiver* inner, DeviceBuffer memory)
      : device_(*device), inner_(*inner), memory_(std::move(memory)) {}
  absl::Status Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) override {
    if (bytes > memory_.bytes()) {
      return absl::InternalError(
          absl::StrCat("rows of ", bytes, " bytes are more than a step has"));
    }
    DT_RETURN_IF_ERROR(inner_.Receive(memory_.data(), bytes, timeout));
    device_.Copy(to, memory_.data(), bytes);
    return absl::OkStatus();
  }

 private:
  Device& device_;
  RowReceiver& inner_;
  DeviceBuffer memory_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RowLinks>> RowLinks::Open(const std::string& worker,
                                                         const RowLinkOptions& options,
                                                         const Senders& to, const Receivers& from) {
  auto links = absl::WrapUnique(new RowLinks(options));
  if (options.device == nullptr || options.kind == GpuLinks::kHost) return links;
  if (options.kind == GpuLinks::kNccl) links->nccl_ = std::make_unique<NcclLinks>(options.device);
  for (const auto& [peer, ring] : to) {
    DT_RETURN_IF_ERROR(links->OfferTo(absl::StrCat(worker, " -> ", peer), peer, ring));
  }
  for (const auto& [peer, ring] : from) {
    DT_RETURN_IF_ERROR(links->TakeFrom(absl::StrCat(peer, " -> ", worker), peer, ring));
  }
  for (const auto& [peer, ring] : to) {
    DT_RETURN_IF_ERROR(links->HearFrom(absl::StrCat(worker, " -> ", peer), peer, ring));
  }
  if (links->nccl_ != nullptr) DT_RETURN_IF_ERROR(links->nccl_->Join(options.timeout));
  return links;
}

absl::Status RowLinks::OfferTo(const std::string& edge, const std::string& peer,
                               transport::TensorSender* ring) {
  Offer offer;
  offer.kind = options_.kind == GpuLinks::kAuto ? GpuLinks::kIpc : options_.kind;
  if (offer.kind == GpuLinks::kNccl) {
    DT_ASSIGN_OR_RETURN(offer.nccl, NcclComm::MakeId());
    DT_ASSIGN_OR_RETURN(senders_[peer], nccl_->AddSender({edge, options_.aborted}, offer.nccl,
                                                         options_.num_slots, options_.slot_bytes));
  } else {
    auto sender =
        IpcSender::Create(options_.device, options_.num_slots, options_.slot_bytes, &offer.ipc);
    if (sender.ok()) {
      senders_[peer] = sender->get();
      own_senders_.push_back(*std::move(sender));
    } else if (options_.kind == GpuLinks::kAuto && absl::IsUnimplemented(sender.status())) {
      LogWarn(absl::StrCat(edge, ": rows go by the host: ", sender.status().message()));
      offer.kind = GpuLinks::kHost;
    } else {
      return Annotate(sender.status(), edge);
    }
  }
  return ring->Send({{&offer, sizeof(offer)}}, options_.timeout);
}

absl::Status RowLinks::TakeFrom(const std::string& edge, const std::string& peer,
                                transport::TensorReceiver* ring) {
  Offer offer;
  DT_ASSIGN_OR_RETURN(const size_t size, ring->Begin(options_.timeout));
  if (size != sizeof(offer)) {
    return absl::InternalError(
        absl::StrCat(edge, ": expected an offer of ", sizeof(offer), " bytes, got ", size));
  }
  DT_RETURN_IF_ERROR(ring->Read(&offer, sizeof(offer), options_.timeout));
  DT_RETURN_IF_ERROR(ring->End(options_.timeout));
  if (offer.kind == GpuLinks::kNccl && nccl_ != nullptr) {
    DT_ASSIGN_OR_RETURN(RowReceiver* const receiver,
                        nccl_->AddReceiver({edge, options_.aborted}, offer.nccl));
    DT_ASSIGN_OR_RETURN(DeviceBuffer memory, options_.device->AllocateLink(options_.slot_bytes));
    own_receivers_.push_back(
        std::make_unique<StagedReceiver>(options_.device, receiver, std::move(memory)));
  } else if (offer.kind == GpuLinks::kIpc && nccl_ == nullptr) {
    auto receiver = IpcReceiver::Create(options_.device, edge, offer.ipc);
    if (receiver.ok()) {
      own_receivers_.push_back(*std::move(receiver));
    } else {
      ring->SetAnswer(kRefused);
      if (options_.kind != GpuLinks::kAuto || !absl::IsUnimplemented(receiver.status())) {
        return receiver.status();
      }
      LogWarn(absl::StrCat("rows go by the host: ", receiver.status().message()));
      return absl::OkStatus();
    }
  } else {
    ring->SetAnswer(kRefused);
    if (offer.kind == GpuLinks::kHost && options_.kind == GpuLinks::kAuto) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(edge, ": offered is ",
                                            static_cast<uint32_t>(offer.kind), ", the plan says ",
                                            GpuLinksName(options_.kind)));
  }
  receivers_[peer] = own_receivers_.back().get();
  ring->SetAnswer(kTaken);
  return absl::OkStatus();
}

absl::Status RowLinks::HearFrom(const std::string& edge, const std::string& peer,
                                transport::TensorSender* ring) {
  DT_ASSIGN_OR_RETURN(const uint32_t answer, ring->Answer(options_.timeout));
  if (answer == kTaken) {
    LogInfo(
        absl::StrCat(edge, ": rows go by ", nccl_ != nullptr ? "NCCL" : "memory that both map"));
    return absl::OkStatus();
  }
  if (options_.kind != GpuLinks::kAuto) {
    return absl::UnimplementedError(absl::StrCat(edge, ": the receiver cannot take the link"));
  }
  senders_.erase(peer);
  return absl::OkStatus();
}

RowSender* RowLinks::To(const std::string& worker) const {
  const auto at = senders_.find(worker);
  return at == senders_.end() ? nullptr : at->second;
}

RowReceiver* RowLinks::From(const std::string& worker) const {
  const auto at = receivers_.find(worker);
  return at == receivers_.end() ? nullptr : at->second;
}

}  // namespace dovetail::worker
