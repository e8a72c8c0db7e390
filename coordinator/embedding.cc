#include "coordinator/embedding.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/generation_request.h"

namespace dovetail::coordinator {
namespace {

using model::Pooling;

// Texts of one call that are in the engine at a time.
constexpr int kMostInFlight = 8;

// A text that has ended.
struct Ended {
  uint64_t call = 0;
  size_t input = 0;
  absl::Status status;
  std::vector<float> vector;
  int prompt_tokens = 0;
};

// What the engine's thread hands over; outlives the service in the hands of sinks.
struct Mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Ended> ended;                    // guarded by mutex
  std::vector<uint64_t> cancelled;             // guarded by mutex
  std::vector<std::function<void()>> started;  // guarded by mutex
  bool stopping = false;                       // guarded by mutex
  bool accepting = true;                       // guarded by mutex
};

// Pools the rows of one text. Engine's thread.
class PoolingSink : public TokenSink {
 public:
  PoolingSink(std::shared_ptr<Mailbox> mailbox, uint64_t call, size_t input, Pooling pooling)
      : mailbox_(std::move(mailbox)), pooling_(pooling) {
    ended_.call = call;
    ended_.input = input;
  }

  void OnToken(int32_t /*token*/) override {}

  void OnHidden(int first_row, absl::Span<const float> rows, int hidden_size) override {
    sum_.resize(static_cast<size_t>(hidden_size));
    const auto count = rows.size() / sum_.size();
    for (size_t r = 0; r < count; ++r, ++num_rows_) {
      if (pooling_ == Pooling::kCls && first_row + static_cast<int>(r) > 0) continue;
      const float* row = rows.data() + r * sum_.size();
      if (pooling_ == Pooling::kLast) std::fill(sum_.begin(), sum_.end(), 0.0);
      for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += row[i];
    }
  }

  void OnFinish(FinishReason /*reason*/, const absl::Status& status,
                const RequestUsage& usage) override {
    ended_.status = status;
    ended_.prompt_tokens = usage.prompt_tokens;
    const double divisor = pooling_ == Pooling::kMean ? std::max(num_rows_, 1) : 1;
    for (const double sum : sum_) ended_.vector.push_back(static_cast<float>(sum / divisor));
    Normalise(&ended_.vector);
    std::lock_guard<std::mutex> lock(mailbox_->mutex);
    mailbox_->ended.push_back(std::move(ended_));
    mailbox_->changed.notify_one();
  }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const Pooling pooling_;
  std::vector<double> sum_;
  int num_rows_ = 0;
  Ended ended_;
};

}  // namespace

void Normalise(std::vector<float>* vector) {
  double squares = 0;
  for (const float x : *vector) squares += double{x} * x;
  if (squares == 0) return;
  const double scale = 1 / std::sqrt(squares);
  for (float& x : *vector) x = static_cast<float>(x * scale);
}

struct EmbeddingService::Impl {
  struct Call {
    EmbeddingRequest request;
    Done done;
    Embeddings result;
    size_t next = 0;                      // input
    std::map<size_t, RequestId> running;  // by input
  };

  const model::ModelConfig* config;
  const model::Tokenizer* tokenizer;
  Engine* engine;
  int context_length;
  const std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  uint64_t next_id = 1;            // guarded by mailbox->mutex
  std::map<uint64_t, Call> calls;  // the thread's
  std::thread thread;

  void Run();
  void Take(Ended ended);
  // Submits what may be submitted; ends the call when there is nothing left.
  void Advance(uint64_t id);
  void End(uint64_t id, absl::Status status);
  absl::StatusOr<RequestId> Submit(uint64_t id, const Call& call) const;
  absl::StatusOr<std::vector<int32_t>> Tokenize(const Call& call, const std::string& field) const;
  Pooling pooling() const { return config->pooling.value_or(Pooling::kLast); }
};

EmbeddingService::EmbeddingService(const model::ModelConfig* config,
                                   const model::Tokenizer* tokenizer, Engine* engine,
                                   int context_length)
    : impl_(std::make_unique<Impl>()) {
  impl_->config = config;
  impl_->tokenizer = tokenizer;
  impl_->engine = engine;
  impl_->context_length = context_length;
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

EmbeddingService::~EmbeddingService() {
  {
    std::lock_guard<std::mutex> lock(impl_->mailbox->mutex);
    impl_->mailbox->stopping = true;
    impl_->mailbox->changed.notify_one();
  }
  impl_->thread.join();
}

uint64_t EmbeddingService::Start(EmbeddingRequest request, Done done) {
  Mailbox& mailbox = *impl_->mailbox;
  std::lock_guard<std::mutex> lock(mailbox.mutex);
  const uint64_t id = impl_->next_id++;
  mailbox.started.push_back([impl = impl_.get(), id, accepted = mailbox.accepting,
                             request = std::move(request), done = std::move(done)]() mutable {
    if (!accepted) return done(absl::UnavailableError("the server is shutting down"));
    impl->calls[id] = {std::move(request), std::move(done), {}, 0, {}};
    impl->Advance(id);
  });
  mailbox.changed.notify_one();
  return id;
}

void EmbeddingService::Cancel(uint64_t id) {
  std::lock_guard<std::mutex> lock(impl_->mailbox->mutex);
  impl_->mailbox->cancelled.push_back(id);
  impl_->mailbox->changed.notify_one();
}

void EmbeddingService::StopAccepting() {
  std::lock_guard<std::mutex> lock(impl_->mailbox->mutex);
  impl_->mailbox->accepting = false;
}

void EmbeddingService::Impl::Run() {
  for (bool stopping = false; !stopping;) {
    std::vector<Ended> ended;
    std::vector<uint64_t> cancelled;
    std::vector<std::function<void()>> started;
    {
      std::unique_lock<std::mutex> lock(mailbox->mutex);
      mailbox->changed.wait(lock, [&] {
        return mailbox->stopping || !mailbox->ended.empty() || !mailbox->cancelled.empty() ||
               !mailbox->started.empty();
      });
      ended.swap(mailbox->ended);
      cancelled.swap(mailbox->cancelled);
      started.swap(mailbox->started);
      stopping = mailbox->stopping;
    }
    for (const auto& start : started) start();
    for (const uint64_t id : cancelled) End(id, absl::CancelledError("the call was cancelled"));
    for (Ended& one : ended) Take(std::move(one));
  }
  while (!calls.empty()) {
    End(calls.begin()->first, absl::CancelledError("the server is shutting down"));
  }
}

void EmbeddingService::Impl::Take(Ended ended) {
  const auto it = calls.find(ended.call);
  if (it == calls.end()) return;  // it failed before, or was cancelled
  Call& call = it->second;
  call.running.erase(ended.input);
  if (!ended.status.ok()) return End(ended.call, std::move(ended.status));
  call.result.vectors.resize(call.request.inputs.size());
  call.result.vectors[ended.input] = std::move(ended.vector);
  call.result.prompt_tokens += ended.prompt_tokens;
  Advance(ended.call);
}

void EmbeddingService::Impl::Advance(uint64_t id) {
  Call& call = calls.at(id);
  while (call.next < call.request.inputs.size() && call.running.size() < kMostInFlight) {
    absl::StatusOr<RequestId> request = Submit(id, call);
    // A full queue is waited out by those that have something in it.
    if (absl::IsResourceExhausted(request.status()) && !call.running.empty()) return;
    if (!request.ok()) return End(id, std::move(request).status());
    call.running[call.next++] = *request;
  }
  if (call.running.empty()) End(id, absl::OkStatus());
}

void EmbeddingService::Impl::End(uint64_t id, absl::Status status) {
  const auto it = calls.find(id);
  if (it == calls.end()) return;
  Call call = std::move(it->second);
  calls.erase(it);
  for (const auto& [input, request] : call.running) engine->Cancel(request);
  if (status.ok()) {
    call.done(std::move(call.result));
  } else {
    call.done(std::move(status));
  }
}

absl::StatusOr<RequestId> EmbeddingService::Impl::Submit(uint64_t id, const Call& call) const {
  const std::string field = call.request.inputs.size() == 1 && call.next == 0
                                ? "input"
                                : absl::StrCat("input[", call.next, "]");
  if (pooling() == Pooling::kNone || pooling() == Pooling::kRank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "this model makes no embeddings: its pooling_type is ", static_cast<int>(pooling())));
  }
  EngineRequest request;
  DT_ASSIGN_OR_RETURN(request.prompt, Tokenize(call, field));
  request.hidden = true;
  request.logits = pooling() != Pooling::kLast;
  request.tenant = call.request.tenant;
  request.deadline = call.request.deadline;
  auto sink = std::make_shared<PoolingSink>(mailbox, id, call.next, pooling());
  const absl::StatusOr<RequestId> submitted = engine->Submit(std::move(request), std::move(sink));
  if (!submitted.ok()) return NameField(submitted.status(), field);
  return submitted;
}

absl::StatusOr<std::vector<int32_t>> EmbeddingService::Impl::Tokenize(
    const Call& call, const std::string& field) const {
  const auto& input = call.request.inputs[call.next];
  std::vector<int32_t> tokens;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&input)) {
    tokens = *ids;
    for (const int32_t id : tokens) {
      if (id >= 0 && id < config->vocab_size) continue;
      return FieldError(field, absl::StrCat("has token id ", id, "; the vocabulary has ids 0 to ",
                                            config->vocab_size - 1));
    }
  } else {
    const std::string& text = std::get<std::string>(input);
    if (text.empty()) return FieldError(field, "must not be empty");
    absl::StatusOr<std::vector<int32_t>> encoded =
        tokenizer->Encode(text, {.add_special = true, .parse_special = false});
    if (!encoded.ok()) return NameField(encoded.status(), field);
    tokens = *std::move(encoded);
  }
  if (tokens.empty()) return FieldError(field, "must not be empty");
  const auto most = static_cast<size_t>(context_length);
  if (tokens.size() <= most) return tokens;
  if (!call.request.truncate) {
    return FieldError(field, absl::StrCat("is too long: this model's maximum context length is ",
                                          most, " tokens; it has ", tokens.size(), " tokens"));
  }
  tokens.resize(most);
  return tokens;
}

}  // namespace dovetail::coordinator
