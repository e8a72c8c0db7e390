// GenerateCall: one Generate stream, between the engine that must not wait and a client that may be
// slow.
//
// Events that come while a message is being written are merged into the next one, so a slow client
// gets fewer and longer messages; past max_unread_bytes it is cut off. gRPC owns the call until
// OnDone, the engine holds it as its sink until the last event.
#ifndef DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_
#define DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/generation.h"
#include "coordinator/service/inference_service.h"
#include "dovetail/v1/inference.grpc.pb.h"

namespace dovetail::coordinator {

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public EventSink,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  explicit GenerateCall(const InferenceOptions& options) : options_(options) {}

  // Starts the generation, or finishes the call with the reason why not. `deadline` is the
  // client's, `tenant` who it is, or why it may not call.
  void Begin(const v1::GenerateRequest& request, absl::Time deadline,
             absl::StatusOr<std::string> tenant);

  void OnEvent(const GenerationEvent& event) override;  // engine's thread

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::StatusOr<RequestId> StartGeneration(const v1::GenerateRequest& request, absl::Time deadline,
                                            absl::StatusOr<std::string> tenant);
  void Merge(const GenerationEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What is to be cancelled once the mutex is free again: the generation service may hold locks of
  // its own while it calls OnEvent.
  std::optional<RequestId> CutOff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Cancel(std::optional<RequestId> id);

  const InferenceOptions options_;
  std::shared_ptr<GenerateCall> self_;
  absl::Mutex mutex_;
  std::optional<RequestId> id_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse writing_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse pending_ ABSL_GUARDED_BY(mutex_);
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_pending_ ABSL_GUARDED_BY(mutex_) = false;
  bool first_ ABSL_GUARDED_BY(mutex_) = true;
  bool cut_off_ ABSL_GUARDED_BY(mutex_) = false;   // nothing more is written
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;     // the last event has come
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish() was called
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_
