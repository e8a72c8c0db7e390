// gpu_nccl WORKER: what NCCL does with one GPU (cuda:N), or the library that stands in for it with
// a simt:N device. One JSON object to standard output, which tools/gpu_check reads: the version,
// and for each check its name, its status (0: good, 1: not, 77: not done here) and what was seen.
//
// NCCL wants a GPU for each rank. So there is a communicator of one rank, which sends to itself,
// and one of two ranks, of which the other never comes and which is aborted.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "transport/nccl_api.h"
#include "worker/device/cuda_device.h"
#include "worker/device/link_wait.h"
#include "worker/device/nccl_comm.h"
#include "worker/device/simt_device.h"

namespace dovetail::worker {
namespace {

using transport::NcclApi;
using transport::NcclCommHandle;
using transport::NcclResult;

constexpr int kGood = 0, kBad = 1, kNotDone = 77;
constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kAbortPatience = absl::Seconds(5);
constexpr int64_t kBytes = int64_t{3} << 20;

absl::Status ToStatus(const NcclApi& nccl, NcclResult result, const char* what) {
  if (result == transport::kNcclSuccess || result == transport::kNcclInProgress) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat(what, ": ", nccl.GetErrorString(result)));
}

// A communicator that the end of the scope aborts.
class Comm {
 public:
  Comm(const NcclApi& nccl, int num_ranks) : nccl_(nccl), num_ranks_(num_ranks) {}
  ~Comm() { Abort(); }
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  absl::Status Begin() {
    transport::NcclUniqueId id;
    DT_RETURN_IF_ERROR(ToStatus(nccl_, nccl_.GetUniqueId(&id), "an id"));
    transport::NcclConfig config;
    config.blocking = 0;
    return ToStatus(nccl_, nccl_.CommInitRankConfig(&comm_, num_ranks_, id, 0, &config), "joining");
  }
  absl::StatusOr<bool> Settled() {
    NcclResult state = transport::kNcclSuccess;
    DT_RETURN_IF_ERROR(ToStatus(nccl_, nccl_.CommGetAsyncError(comm_, &state), "asking"));
    DT_RETURN_IF_ERROR(ToStatus(nccl_, state, "the communicator"));
    return state == transport::kNcclSuccess;
  }
  absl::Status Wait(const char* what) {
    return WaitFor({.name = "one rank", .aborted = [] { return false; }}, what, kPatience,
                   [this] { return Settled(); });
  }
  NcclResult Abort() {
    return comm_ == nullptr ? transport::kNcclSuccess
                            : nccl_.CommAbort(std::exchange(comm_, nullptr));
  }
  NcclCommHandle get() const { return comm_; }

 private:
  const NcclApi& nccl_;
  const int num_ranks_;
  NcclCommHandle comm_ = nullptr;
};

absl::StatusOr<std::string> AbortInTime(const NcclApi& nccl, Comm* comm) {
  const absl::Time start = absl::Now();
  DT_RETURN_IF_ERROR(ToStatus(nccl, comm->Abort(), "aborting"));
  const absl::Duration took = absl::Now() - start;
  if (took > kAbortPatience) {
    return absl::DeadlineExceededError(absl::StrCat("took ", absl::FormatDuration(took)));
  }
  return absl::StrCat("in ", absl::ToInt64Milliseconds(took), " ms");
}

// Bytes to itself, as one group: the only way in which a rank may be its own peer.
absl::Status SendToItself(const NcclApi& nccl, Device* device, Comm* comm) {
  std::vector<uint8_t> sent(kBytes), received(kBytes);
  for (int64_t i = 0; i < kBytes; ++i) sent[i] = static_cast<uint8_t>(i * 37 % 251);
  DT_ASSIGN_OR_RETURN(const DeviceBuffer from, device->AllocateLink(kBytes));
  DT_ASSIGN_OR_RETURN(const DeviceBuffer to, device->AllocateLink(kBytes));
  DT_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceStream> stream, device->MakeStream());
  device->Upload(from.data(), sent.data(), kBytes);
  DT_RETURN_IF_ERROR(device->Wait());
  DT_RETURN_IF_ERROR(InNcclGroup([&] {
    const NcclResult result =
        nccl.Send(from.data(), kBytes, transport::kNcclUint8, 0, comm->get(), stream->handle());
    DT_RETURN_IF_ERROR(ToStatus(nccl, result, "sending"));
    return ToStatus(
        nccl, nccl.Recv(to.data(), kBytes, transport::kNcclUint8, 0, comm->get(), stream->handle()),
        "receiving");
  }));
  DT_RETURN_IF_ERROR(comm->Wait("a send to itself was not taken"));
  DT_RETURN_IF_ERROR(WaitFor({.name = "one rank", .aborted = [] { return false; }},
                             "a send to itself did not end", kPatience,
                             [&] { return stream->Done(); }));
  device->Download(received.data(), to.data(), kBytes);
  DT_RETURN_IF_ERROR(device->Wait());
  if (received != sent) return absl::DataLossError("other bytes came than were sent");
  return absl::OkStatus();
}

absl::StatusOr<std::string> OneRank(const NcclApi& nccl, Device* device) {
  Comm comm(nccl, 1);
  DT_RETURN_IF_ERROR(comm.Begin());
  DT_RETURN_IF_ERROR(comm.Wait("a communicator of one rank did not come up"));
  DT_RETURN_IF_ERROR(SendToItself(nccl, device, &comm));
  DT_ASSIGN_OR_RETURN(const std::string took, AbortInTime(nccl, &comm));
  return absl::StrCat(kBytes, " bytes to itself; aborted ", took);
}

// The other rank never comes.
absl::StatusOr<std::string> AbortAlone(const NcclApi& nccl) {
  Comm comm(nccl, 2);
  DT_RETURN_IF_ERROR(comm.Begin());
  absl::SleepFor(absl::Milliseconds(300));
  DT_ASSIGN_OR_RETURN(const bool settled, comm.Settled());
  if (settled) return absl::InternalError("two ranks have joined, of which there is one");
  return AbortInTime(nccl, &comm);
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const std::string& name) {
  int index = 0;
  if (absl::StartsWith(name, "simt:")) return std::make_unique<SimtDevice>(/*seed=*/1);
  if (absl::StartsWith(name, "cuda:") && absl::SimpleAtoi(name.substr(5), &index)) {
    return OpenCudaDevice(index);
  }
  return absl::InvalidArgumentError("usage: gpu_nccl cuda:N | simt:N");
}

nlohmann::json Entry(const char* name, int status, absl::string_view text) {
  return {{"name", name}, {"status", status}, {"text", std::string(text)}};
}

nlohmann::json Check(const char* name, absl::FunctionRef<absl::StatusOr<std::string>()> check) {
  const absl::StatusOr<std::string> seen = check();
  return seen.ok() ? Entry(name, kGood, *seen) : Entry(name, kBad, seen.status().message());
}

nlohmann::json Checks(const NcclApi& nccl, const std::string& worker) {
  nlohmann::json checks = {Entry("NCCL's functions", kGood, absl::StrCat(nccl.version))};
  auto device = OpenDevice(worker);
  if (device.ok()) {
    if (absl::Status attached = (*device)->Attach(); !attached.ok()) device = attached;
  }
  if (!device.ok()) {
    checks.push_back(Entry("communicators", kNotDone, device.status().message()));
    return checks;
  }
  checks.push_back(
      Check("a communicator of one rank", [&] { return OneRank(nccl, device->get()); }));
  checks.push_back(
      Check("abort of one whose other rank does not come", [&] { return AbortAlone(nccl); }));
  return checks;
}

int Main(const std::string& worker) {
  nlohmann::json json = {{"version", 0}};
  if (const auto nccl = transport::Nccl(); nccl.ok()) {
    json["version"] = (*nccl)->version;
    json["checks"] = Checks(**nccl, worker);
  } else {
    const int status = absl::IsNotFound(nccl.status()) ? kNotDone : kBad;
    json["checks"] = {Entry("NCCL's functions", status, nccl.status().message())};
  }
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace dovetail::worker

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: gpu_nccl cuda:N | simt:N\n");
    return 2;
  }
  return dovetail::worker::Main(argv[1]);
}
