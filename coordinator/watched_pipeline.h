// WatchedPipeline: a Pipeline that tells the engine why the cluster ended it.
//
// The engine only sees that an exchange was aborted; the cluster knows that worker cpu:1 was
// killed. Once SetReason() was called every error of the pipeline reads as that reason, which is
// what clients get.
#ifndef DOVETAIL_COORDINATOR_WATCHED_PIPELINE_H_
#define DOVETAIL_COORDINATOR_WATCHED_PIPELINE_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/pipeline.h"

namespace dovetail::coordinator {

// Shared by the cluster and the pipeline that the engine owns. Thread-safe.
class PipelineWatch {
 public:
  void SetReason(const absl::Status& reason);
  // What the engine is to see instead of `error`.
  absl::Status Translate(const absl::Status& error) const;

 private:
  mutable absl::Mutex mutex_;
  absl::Status reason_ ABSL_GUARDED_BY(mutex_);
};

std::unique_ptr<Pipeline> MakeWatchedPipeline(std::unique_ptr<Pipeline> inner,
                                              std::shared_ptr<const PipelineWatch> watch);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_WATCHED_PIPELINE_H_
