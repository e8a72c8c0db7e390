#include "tests/testing/local_pipeline.h"

#include <stdlib.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "model/gguf/gguf_file.h"
#include "model/row_parts.h"
#include "transport/worker_plan.h"

namespace dovetail::testing {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr uint64_t kRingBytes = uint64_t{1} << 20;

using transport::SequenceStep;
using transport::StepFrame;
using transport::StepOutput;

Route MakeRoute(const std::vector<Op>& ops, std::vector<int> cuts, int num_workers) {
  cuts.push_back(static_cast<int>(ops.size()));
  if (num_workers == 0) num_workers = static_cast<int>(cuts.size());
  Route route;
  int begin = 0;
  for (int end : cuts) {
    Segment segment;
    segment.worker = absl::StrCat("cpu:", route.size() % num_workers);
    segment.ops.assign(ops.begin() + begin, ops.begin() + end);
    route.push_back(std::move(segment));
    begin = end;
  }
  return route;
}

// Of "simt:1".
int NumberOf(const std::string& worker) { return std::stoi(worker.substr(worker.find(':') + 1)); }

}  // namespace

Route SharedRoute(const std::string& gguf, const std::vector<Member>& members) {
  const auto file = model::GgufFile::Open(gguf).value();
  const model::ModelConfig config = model::LoadModelConfig(*file).value();
  const auto can_share = [&](const Op& op) {
    const int64_t units = model::RowUnitsOf(config, *file, op).count;
    return model::WhyNotSplit(config, op).empty() &&
           (units == 0 || units >= static_cast<int64_t>(members.size()));
  };
  const std::vector<Op> ops = model::OpsOf(config);
  std::set<int> whole_experts;  // layers
  for (const Op& op : ops) {
    if (IsExpertPart(op.kind) && !can_share(op)) whole_experts.insert(op.layer);
  }
  Route route;
  for (const Op& op : ops) {
    const bool shared =
        can_share(op) && !(IsExpertPart(op.kind) && whole_experts.count(op.layer) > 0);
    if (route.empty() || shared == route.back().members.empty()) {
      route.push_back({members.front().worker, {}});
      if (shared) route.back().members = members;
    }
    route.back().ops.push_back(op);
  }
  return route;
}

// What the executors' threads report.
struct LocalPipeline::Events {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<worker::LoadResult> loads;
  // Not absl::Status: its reference count is in a library that TSan does not see into.
  std::vector<std::pair<absl::StatusCode, std::string>> failures;
  size_t connected = 0;
  int lost_devices = 0;

  // With the mutex held.
  std::vector<absl::Status> FailuresLocked() const {
    std::vector<absl::Status> statuses;
    for (const auto& [code, message] : failures) statuses.emplace_back(code, message);
    return statuses;
  }

  // Waits until `done` holds or something failed.
  template <typename Done>
  absl::Status WaitFor(const Done& done) {
    std::unique_lock<std::mutex> lock(mutex);
    const bool in_time = changed.wait_for(lock, std::chrono::seconds(60),
                                          [&] { return !failures.empty() || done(); });
    if (!failures.empty()) return FailuresLocked().front();
    return in_time ? absl::OkStatus() : absl::DeadlineExceededError("executors did not answer");
  }

  worker::ExecutorEvents Handlers() {
    worker::ExecutorEvents handlers;
    handlers.loaded = [this](const worker::LoadResult& result) {
      std::lock_guard<std::mutex> lock(mutex);
      loads.push_back(result);
      changed.notify_all();
    };
    handlers.connected = [this](uint64_t) {
      std::lock_guard<std::mutex> lock(mutex);
      ++connected;
      changed.notify_all();
    };
    handlers.failed = [this](const absl::Status& status, uint64_t) {
      std::lock_guard<std::mutex> lock(mutex);
      failures.emplace_back(status.code(), std::string(status.message()));
      changed.notify_all();
    };
    handlers.device_lost = [this](const absl::Status&) {
      std::lock_guard<std::mutex> lock(mutex);
      ++lost_devices;
      changed.notify_all();
    };
    return handlers;
  }
};

absl::StatusOr<std::unique_ptr<LocalPipeline>> LocalPipeline::Start(
    const LocalPipelineOptions& options) {
  auto pipeline = absl::WrapUnique(new LocalPipeline());
  pipeline->events_ = std::make_shared<Events>();
  DT_RETURN_IF_ERROR(pipeline->LoadAll(options));
  DT_RETURN_IF_ERROR(pipeline->ConnectAll());
  return pipeline;
}

absl::Status LocalPipeline::LoadAll(const LocalPipelineOptions& options) {
  transport::WorkerPlan plan;
  {
    DT_ASSIGN_OR_RETURN(auto file, model::GgufFile::Open(options.gguf));
    DT_ASSIGN_OR_RETURN(config_, model::LoadModelConfig(*file));
    plan.model_fingerprint = file->fingerprint();
  }
  route_ = options.make_route ? options.make_route(config_)
                              : MakeRoute(model::OpsOf(config_), options.cuts, options.num_workers);
  shape_ = options.shape;
  plan.plan_id = 1;
  plan.model_path = options.gguf;
  plan.route = route_;
  plan.step_shape = shape_;
  plan.ring_bytes = kRingBytes;

  segment_dir_ = options.segment_dir;
  if (segment_dir_.empty()) {
    std::string path = (std::filesystem::temp_directory_path() / "dovetail-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) return absl::InternalError("mkdtemp failed");
    segment_dir_ = path;
    remove_segment_dir_ = true;
  }
  const kernels::KernelTable* kernels = options.kernels;
  if (kernels == nullptr) {
    DT_ASSIGN_OR_RETURN(kernels, kernels::SelectTable(""));
  }
  std::map<int, std::string> names;
  const auto count = [&](const std::string& worker) { names[NumberOf(worker)] = worker; };
  for (const Segment& segment : route_) {
    count(segment.worker);
    for (const Member& member : segment.members) count(member.worker);
  }
  for (const auto& [i, name] : names) {
    worker::ExecutorOptions executor;
    executor.worker = name;
    executor.num_threads = options.num_threads;
    executor.kernels = kernels;
    executor.in_place = options.in_place;
    devices_.push_back(options.make_device ? options.make_device(i) : nullptr);
    executor.device = devices_.back().get();
    executors_.push_back(std::make_unique<worker::Executor>(executor, events_->Handlers()));
    const std::string base = absl::StrCat(segment_dir_, "/cpu-", i);
    executors_.back()->Load(plan, base + ".weights", base + ".kv",
                            [dir = segment_dir_](const std::string& peer) {
                              return absl::StrCat(dir, "/cpu-", NumberOf(peer), ".weights");
                            });
  }
  DT_RETURN_IF_ERROR(events_->WaitFor([&] { return events_->loads.size() == executors_.size(); }));
  loads_ = events_->loads;
  return absl::OkStatus();
}

absl::Status LocalPipeline::Reconnect() {
  exchange_->Abort();
  sender_.reset();
  receiver_.reset();
  ++epoch_;
  {
    std::lock_guard<std::mutex> lock(events_->mutex);
    events_->connected = 0;
  }
  return ConnectAll();
}

absl::Status LocalPipeline::ConnectAll() {
  exchange_ = transport::Exchange::CreateInProcess(
      transport::ExchangeSpec::ForRoute(route_, epoch_, kRingBytes));
  for (auto& executor : executors_) {
    executor->Connect([exchange = exchange_] { return exchange; });
  }
  DT_RETURN_IF_ERROR(events_->WaitFor([&] { return events_->connected == executors_.size(); }));
  DT_ASSIGN_OR_RETURN(sender_, exchange_->Sender(transport::kCoordinator, route_.front().worker));
  DT_ASSIGN_OR_RETURN(receiver_,
                      exchange_->Receiver(route_.back().worker, transport::kCoordinator));
  return absl::OkStatus();
}

int LocalPipeline::num_lost_devices() const {
  std::lock_guard<std::mutex> lock(events_->mutex);
  return events_->lost_devices;
}

LocalPipeline::~LocalPipeline() {
  if (exchange_ != nullptr) exchange_->Abort();
  executors_.clear();
  if (remove_segment_dir_) std::filesystem::remove_all(segment_dir_);
}

StepFrame LocalPipeline::NewFrame() {
  StepFrame frame;
  frame.header.epoch = epoch_;
  frame.header.step = next_step_++;
  frame.header.hidden_size = static_cast<uint32_t>(config_.hidden_size);
  return frame;
}

void LocalPipeline::AddRows(const std::vector<int32_t>& tokens, int position, int num_rows,
                            int first_block, int num_logit_rows, uint32_t flags,
                            const SamplingParams& sampling, StepFrame* frame) {
  SequenceStep sequence;
  sequence.sequence_id = static_cast<uint64_t>(first_block) + 1000;
  sequence.num_rows = num_rows;
  sequence.position = position;
  sequence.num_blocks = (position + num_rows + kKvBlockTokens - 1) / kKvBlockTokens;
  sequence.num_logit_rows = num_logit_rows;
  sequence.flags = flags;
  sequence.sampling = sampling;
  const int first_row = static_cast<int>(frame->tokens.size());
  for (int i = 0; i < sequence.num_blocks; ++i) frame->block_ids.push_back(first_block + i);
  for (int i = 0; i < num_rows; ++i) frame->tokens.push_back(tokens[position + i]);
  for (int i = num_rows - num_logit_rows; i < num_rows; ++i) {
    frame->logit_rows.push_back(first_row + i);
    frame->targets.push_back(-1);
  }
  frame->sequences.push_back(sequence);
  frame->header.num_sequences = static_cast<uint32_t>(frame->sequences.size());
  frame->header.num_rows = static_cast<uint32_t>(frame->tokens.size());
  frame->header.num_block_ids = static_cast<uint32_t>(frame->block_ids.size());
  frame->header.num_logit_rows = static_cast<uint32_t>(frame->logit_rows.size());
}

absl::Status LocalPipeline::Send(const StepFrame& frame, const transport::StepRows& rows) {
  return transport::SendStep(*sender_, frame, rows, kTimeout);
}

absl::StatusOr<StepOutput> LocalPipeline::Receive() {
  StepOutput output;
  output.Reserve(shape_, config_.vocab_size, config_.hidden_size);
  DT_RETURN_IF_ERROR(transport::ReceiveOutput(*receiver_, shape_, epoch_, config_.vocab_size,
                                              config_.hidden_size, &output, kTimeout));
  return output;
}

absl::StatusOr<StepOutput> LocalPipeline::RunStep(const StepFrame& frame,
                                                  const transport::StepRows& rows) {
  DT_RETURN_IF_ERROR(Send(frame, rows));
  auto output = Receive();
  std::lock_guard<std::mutex> lock(events_->mutex);
  failures_ = events_->FailuresLocked();
  return output;
}

absl::StatusOr<std::vector<Logits>> LocalPipeline::Evaluate(
    const std::vector<std::vector<int32_t>>& sequences, int chunk) {
  std::vector<Logits> logits(sequences.size());
  std::vector<int> position(sequences.size(), 0);
  for (;;) {
    StepFrame frame = NewFrame();
    std::vector<size_t> members;
    int first_block = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int length = static_cast<int>(sequences[i].size());
      const int room = shape_.max_rows - static_cast<int>(frame.tokens.size());
      const int rows = std::min({chunk, length - position[i], room});
      if (rows > 0) {
        AddRows(sequences[i], position[i], rows, first_block, rows, SequenceStep::kReturnLogits, {},
                &frame);
        position[i] += rows;
        members.push_back(i);
      }
      first_block += (length + kKvBlockTokens - 1) / kKvBlockTokens;
    }
    if (members.empty()) return logits;
    DT_ASSIGN_OR_RETURN(const StepOutput output, RunStep(frame));
    if (output.header.error_layer != 0) {
      return absl::InternalError(absl::StrCat("not finite after op ", output.header.error_layer));
    }
    const float* row = output.logits.data();
    for (size_t s = 0; s < members.size(); ++s) {
      for (int i = 0; i < output.sequences[s].num_logit_rows; ++i) {
        logits[members[s]].emplace_back(row, row + config_.vocab_size);
        row += config_.vocab_size;
      }
    }
  }
}

absl::StatusOr<std::vector<int32_t>> LocalPipeline::Greedy(std::vector<int32_t> tokens, int count) {
  const SamplingParams greedy = {.temperature = 0};
  std::vector<int32_t> generated;
  int position = 0;
  while (static_cast<int>(generated.size()) < count) {
    StepFrame frame = NewFrame();
    const int rows = static_cast<int>(tokens.size()) - position;
    AddRows(tokens, position, rows, 0, 1, SequenceStep::kSample, greedy, &frame);
    DT_ASSIGN_OR_RETURN(const StepOutput output, RunStep(frame));
    position += rows;
    tokens.push_back(output.sequences.at(0).token);
    generated.push_back(tokens.back());
  }
  return generated;
}

}  // namespace dovetail::testing
