#include "coordinator/grammar/grammar_service.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/grammar/mask_thread.h"
#include "xgrammar/compiler.h"
#include "xgrammar/grammar.h"

namespace dovetail::coordinator {
namespace {

// A run of white space in JSON is longer in nothing that people write; a small model would go on
// for ever.
constexpr int kMaxWhitespace = 64;
constexpr absl::Duration kShutdownGrace = absl::Seconds(3);

// Without the library's own position in its sources.
std::string CleanMessage(absl::string_view what) {
  const size_t source = what.find(".cc:");
  const size_t end = source == absl::string_view::npos ? source : what.find(": ", source);
  if (end != absl::string_view::npos) what.remove_prefix(end + 2);
  return std::string(what.substr(0, 500));
}

absl::Status Refusal(const GrammarSpec& spec, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("`", spec.field, "` ", problem));
}

xgrammar::TokenizerInfo MakeTokenizerInfo(const model::Tokenizer& tokenizer, int vocab_size,
                                          const std::vector<std::string>& markers) {
  std::vector<std::string> vocab(static_cast<size_t>(vocab_size));
  const int known = std::min(vocab_size, tokenizer.vocab_size());
  for (int32_t id = 0; id < known; ++id) {
    std::string bytes = tokenizer.TokenBytes(id, /*special=*/true);
    // What has no bytes counts as special and is never allowed.
    const bool allowed = !tokenizer.IsSpecial(id) ||
                         std::find(markers.begin(), markers.end(), bytes) != markers.end();
    if (allowed) vocab[static_cast<size_t>(id)] = std::move(bytes);
  }
  const auto ends = tokenizer.end_of_generation();
  return xgrammar::TokenizerInfo(vocab, xgrammar::VocabType::RAW, vocab_size,
                                 std::vector<int32_t>(ends.begin(), ends.end()));
}

class CompiledGrammar : public Grammar {
 public:
  CompiledGrammar(std::shared_ptr<MaskThread> masks, xgrammar::CompiledGrammar grammar,
                  bool ends_by_itself)
      : masks_(std::move(masks)), grammar_(std::move(grammar)), ends_by_itself_(ends_by_itself) {}

  std::shared_ptr<TokenConstraint> Start(std::function<void()> wake) const override {
    return masks_->NewSession(grammar_, ends_by_itself_, std::move(wake));
  }

 private:
  const std::shared_ptr<MaskThread> masks_;
  const xgrammar::CompiledGrammar grammar_;
  const bool ends_by_itself_;  // the vocabulary has no token that ends
};

}  // namespace

// Shared with the threads, which may outlive the service by what they are compiling.
struct GrammarService::State {
  struct Job {
    GrammarSpec spec;
    Done done;
    absl::Time deadline;
    bool answered = false;
  };

  void Run();
  void RunJob(const std::shared_ptr<Job>& job);
  void WatchDeadlines();
  void Answer(Job* job, absl::StatusOr<std::shared_ptr<const Grammar>> result);
  absl::StatusOr<std::shared_ptr<const Grammar>> CompileNow(const GrammarSpec& spec);
  xgrammar::CompiledGrammar CompileSource(const GrammarSpec& spec);

  const model::Tokenizer* tokenizer;
  int vocab_size;
  std::vector<std::string> markers;
  GrammarOptions options;
  std::shared_ptr<MaskThread> masks;

  std::once_flag compiler_made;
  std::unique_ptr<xgrammar::GrammarCompiler> compiler;

  std::mutex mutex;
  std::condition_variable changed;
  // All below under `mutex`.
  std::deque<std::shared_ptr<Job>> waiting;
  std::vector<std::shared_ptr<Job>> unanswered;
  int num_running = 0;  // threads that are still there
  bool stopping = false;
};

GrammarService::GrammarService(const model::Tokenizer* tokenizer, int vocab_size,
                               std::vector<std::string> markers, const GrammarOptions& options)
    : state_(std::make_shared<State>()) {
  state_->tokenizer = tokenizer;
  state_->vocab_size = vocab_size;
  state_->markers = std::move(markers);
  state_->options = options;
  state_->masks = MaskThread::Start(vocab_size);
  state_->num_running = options.compile_threads + 1;
  // Not joined: a grammar that hangs its compiler must not hang the end of the process.
  for (int i = 0; i < options.compile_threads; ++i) {
    std::thread([state = state_] { state->Run(); }).detach();
  }
  std::thread([state = state_] { state->WatchDeadlines(); }).detach();
}

GrammarService::~GrammarService() {
  std::vector<std::shared_ptr<State::Job>> left;
  {
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
    left = state_->unanswered;
    state_->changed.wait_until(lock, absl::ToChronoTime(absl::Now() + kShutdownGrace),
                               [this] { return state_->num_running == 0; });
  }
  for (const auto& job : left) {
    state_->Answer(job.get(), absl::UnavailableError("the server is shutting down"));
  }
  state_->masks->Stop();
}

void GrammarService::Compile(GrammarSpec spec, Done done) {
  absl::Status refusal;
  if (spec.source.size() > state_->options.max_source_bytes) {
    refusal = Refusal(spec, absl::StrCat("is too large: ", spec.source.size(), " bytes; at most ",
                                         state_->options.max_source_bytes, " are allowed"));
  } else {
    std::lock_guard<std::mutex> lock(state_->mutex);
    if (static_cast<int>(state_->waiting.size()) < state_->options.max_waiting) {
      auto job = std::make_shared<State::Job>();
      job->spec = std::move(spec);
      job->done = std::move(done);
      job->deadline = absl::Now() + state_->options.compile_timeout;
      state_->unanswered.push_back(job);
      state_->waiting.push_back(std::move(job));
      state_->changed.notify_all();
      return;
    }
    refusal = absl::ResourceExhaustedError("too many grammars are waiting to be compiled");
  }
  done(refusal);
}

void GrammarService::State::Run() {
  std::unique_lock<std::mutex> lock(mutex);
  while (true) {
    changed.wait(lock, [this] { return stopping || !waiting.empty(); });
    if (stopping) break;
    const std::shared_ptr<Job> job = std::move(waiting.front());
    waiting.pop_front();
    if (job->answered) continue;
    lock.unlock();
    RunJob(job);
    lock.lock();
  }
  --num_running;
  changed.notify_all();
}

void GrammarService::State::RunJob(const std::shared_ptr<Job>& job) {
  Answer(job.get(), CompileNow(job->spec));
}

void GrammarService::State::Answer(Job* job,
                                   absl::StatusOr<std::shared_ptr<const Grammar>> result) {
  Done done;
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (std::exchange(job->answered, true)) return;
    done = std::move(job->done);
    std::erase_if(unanswered, [job](const auto& other) { return other.get() == job; });
  }
  done(std::move(result));
}

void GrammarService::State::WatchDeadlines() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!stopping) {
    absl::Time next = absl::Now() + absl::Hours(1);
    std::vector<std::shared_ptr<Job>> late;
    for (const auto& job : unanswered) {
      if (job->deadline <= absl::Now()) {
        late.push_back(job);
      } else {
        next = std::min(next, job->deadline);
      }
    }
    if (late.empty()) {
      changed.wait_until(lock, absl::ToChronoTime(next));
      continue;
    }
    lock.unlock();
    for (const auto& job : late) {
      Answer(job.get(),
             Refusal(job->spec,
                     absl::StrCat("takes more than ", absl::FormatDuration(options.compile_timeout),
                                  " to compile; use a simpler one")));
    }
    lock.lock();
  }
  --num_running;
  changed.notify_all();
}

xgrammar::CompiledGrammar GrammarService::State::CompileSource(const GrammarSpec& spec) {
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      return compiler->CompileJSONSchema(R"({"type":"object"})", /*any_whitespace=*/true,
                                         std::nullopt, std::nullopt, /*strict_mode=*/false,
                                         kMaxWhitespace);
    case GrammarKind::kJsonSchema:
      return compiler->CompileJSONSchema(spec.source, /*any_whitespace=*/true, std::nullopt,
                                         std::nullopt, /*strict_mode=*/true, kMaxWhitespace);
    case GrammarKind::kRegex:
      return compiler->CompileRegex(spec.source);
    case GrammarKind::kEbnf:
      return compiler->CompileGrammar(spec.source, "root");
    case GrammarKind::kStructuralTag:
      break;
  }
  return compiler->CompileStructuralTag(spec.source);
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarService::State::CompileNow(
    const GrammarSpec& spec) {
  try {
    std::call_once(compiler_made, [this] {
      compiler = std::make_unique<xgrammar::GrammarCompiler>(
          MakeTokenizerInfo(*tokenizer, vocab_size, markers), /*max_threads=*/1,
          /*cache_enabled=*/true, options.cache_bytes);
    });
    return std::make_shared<CompiledGrammar>(masks, CompileSource(spec),
                                             tokenizer->end_of_generation().empty());
  } catch (const std::exception& error) {
    return Refusal(spec, absl::StrCat("cannot be used: ", CleanMessage(error.what())));
  }
}

}  // namespace dovetail::coordinator
