// GenerateCall: one Generate stream, between the engine that must not wait and a client that may be
// slow.
//
// Each choice is a generation. Events that come while a message is being written are merged into
// the next one of their choice, so a slow client gets fewer and longer messages; past
// max_unread_bytes it is cut off. gRPC owns the call until OnDone, the engine holds it as its sink
// until the last event.
#ifndef DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_
#define DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "coordinator/generation.h"
#include "coordinator/service/inference_service.h"
#include "dovetail/v1/inference.grpc.pb.h"

namespace dovetail::coordinator {

class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  explicit GenerateCall(const InferenceOptions& options) : options_(options) {}

  // Starts the generations, or finishes the call with the reason why not. `deadline` is the
  // client's, `tenant` who it is, or why it may not call.
  void Begin(const v1::GenerateRequest& request, absl::Time deadline,
             absl::StatusOr<std::string> tenant);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Sink;
  struct Choice {
    std::optional<RequestId> id;  // known when it has started
    v1::GenerateResponse pending;
    bool has_pending = false;
    bool first = true;
    bool ended = false;  // the last event has come, or it did not start
  };

  absl::Status StartGenerations(const v1::GenerateRequest& request, absl::Time deadline,
                                absl::StatusOr<std::string> tenant);
  void OnStarted(size_t choice, const absl::StatusOr<RequestId>& id);
  void OnEvent(size_t choice, const GenerationEvent& event);  // engine's thread
  // All below hold the mutex; what they return is to be cancelled once it is free again: the
  // generation service may hold locks of its own while it calls OnEvent.
  using Cancels = std::vector<RequestId>;
  void Merge(const GenerationEvent& event, Choice* choice) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing is computed for the call any more; what was, is still sent unless it is to be dropped.
  Cancels CutOff(const absl::Status& status, bool drops) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t UnreadBytes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Cancel(const Cancels& ids);

  const InferenceOptions options_;
  const ModelEntry* model_ = nullptr;  // found in Begin(); null where there is none
  std::shared_ptr<GenerateCall> self_;
  absl::Mutex mutex_;
  std::vector<Choice> choices_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse writing_ ABSL_GUARDED_BY(mutex_);
  const absl::Time begun_ = absl::Now();
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cut_off_ ABSL_GUARDED_BY(mutex_) = false;   // nothing more is taken in
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish() was called
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_GENERATE_CALL_H_
