// LocalPipeline: a coordinator's view of real executors that run as threads of the test, without
// gRPC.
//
// Makes a plan for a GGUF file and a route, starts one Executor per worker of the route, loads, and
// connects them over an Exchange in this process's memory. A test then sends step frames and reads
// outputs, or asks for the logits of whole sequences. Used by one thread.
#ifndef DOVETAIL_TESTS_TESTING_LOCAL_PIPELINE_H_
#define DOVETAIL_TESTS_TESTING_LOCAL_PIPELINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "kernels/kernel_table.h"
#include "model/model_config.h"
#include "transport/exchange.h"
#include "transport/step_frame.h"
#include "worker/device/device.h"
#include "worker/executor.h"

namespace dovetail::testing {

struct LocalPipelineOptions {
  std::string gguf;
  // The numbers of the ops at which a new segment begins, ascending; the segments go to cpu:0,
  // cpu:1, ... in turn. {} is one worker.
  std::vector<int> cuts;
  int num_workers = 0;  // 0: one per segment; fewer make the route re-entrant
  // If given, the route, in place of cuts: workers are cpu:0, cpu:1, ..., or simt:0 in place of
  // one, each number in it.
  std::function<Route(const model::ModelConfig&)> make_route;
  int num_threads = 1;                            // per worker
  const kernels::KernelTable* kernels = nullptr;  // null: the best
  bool in_place = false;                          // weights stay in the file
  // What worker i computes on; not given, or null: the CPU.
  std::function<std::unique_ptr<worker::Device>(int worker)> make_device;
  StepShape shape = {.max_rows = 512,
                     .max_sequences = 16,
                     .max_logit_rows = 512,
                     .context_length = 512,
                     .num_kv_blocks = 160,
                     .kv_type = KvType::kF32};
  std::string segment_dir;  // "": a fresh one, removed at the end
};

// The members share the rows of everything that they can share; the rest is with the first of them.
// The parts of a layer with experts can only be shared together.
Route SharedRoute(const std::string& gguf, const std::vector<Member>& members);

// One sequence's logits: a row per token.
using Logits = std::vector<std::vector<float>>;

class LocalPipeline {
 public:
  static absl::StatusOr<std::unique_ptr<LocalPipeline>> Start(const LocalPipelineOptions& options);
  ~LocalPipeline();

  const model::ModelConfig& config() const { return config_; }
  const Route& route() const { return route_; }
  transport::Exchange& exchange() { return *exchange_; }
  worker::Executor& executor(int worker) { return *executors_[worker]; }
  const std::vector<worker::LoadResult>& loads() const { return loads_; }
  const std::vector<absl::Status>& failures() const { return failures_; }
  // Devices that are lost so far.
  int num_lost_devices() const;

  // Ends the epoch and connects all executors in the next one.
  absl::Status Reconnect();

  // A frame with the epoch, the step number and the sizes filled in from its vectors.
  transport::StepFrame NewFrame();
  // Adds `num_rows` tokens of a sequence to the frame; `tokens` is the whole sequence so far, and
  // its KV blocks are [first_block, ...).
  static void AddRows(const std::vector<int32_t>& tokens, int position, int num_rows,
                      int first_block, int num_logit_rows, uint32_t flags,
                      const SamplingParams& sampling, transport::StepFrame* frame);

  absl::Status Send(const transport::StepFrame& frame, const transport::StepRows& rows = {});
  absl::StatusOr<transport::StepOutput> Receive();
  // Send and Receive.
  absl::StatusOr<transport::StepOutput> RunStep(const transport::StepFrame& frame,
                                                const transport::StepRows& rows = {});

  // Logits of all rows of all sequences, at most `chunk` tokens of each in a step, all sequences
  // together.
  absl::StatusOr<std::vector<Logits>> Evaluate(const std::vector<std::vector<int32_t>>& sequences,
                                               int chunk);
  // `count` greedy tokens after the prompt.
  absl::StatusOr<std::vector<int32_t>> Greedy(std::vector<int32_t> tokens, int count);

 private:
  LocalPipeline() = default;
  absl::Status LoadAll(const LocalPipelineOptions& options);
  absl::Status ConnectAll();

  model::ModelConfig config_;
  Route route_;
  StepShape shape_;
  std::string segment_dir_;
  bool remove_segment_dir_ = false;
  std::shared_ptr<transport::Exchange> exchange_;
  std::unique_ptr<transport::TensorSender> sender_;
  std::unique_ptr<transport::TensorReceiver> receiver_;
  std::vector<std::unique_ptr<worker::Device>> devices_;
  std::vector<std::unique_ptr<worker::Executor>> executors_;
  std::vector<worker::LoadResult> loads_;
  std::vector<absl::Status> failures_;
  struct Events;
  std::shared_ptr<Events> events_;
  uint64_t epoch_ = 7;
  uint64_t next_step_ = 1;
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_LOCAL_PIPELINE_H_
