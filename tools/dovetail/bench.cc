#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "coordinator/placement/speed.h"
#include "tools/dovetail/batch_run.h"
#include "tools/dovetail/bench_trace.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"

namespace dovetail::tools {
namespace {

struct BenchFlags {
  LocalJobFlags job;
  int prompt = 512;
  int generate = 64;
  int depth = 1;   // tokens in the cache before decoding is timed
  int repeat = 3;  // the median is reported
  std::string streams = "1";
  SamplingParams sampling = {.temperature = 0};  // of decoding
  bool json = false;
  bool segments = false;  // how long each worker computes, too
  BenchTraceFlags trace;
  std::string patience = "4h";  // of `trace`
};

constexpr uint64_t kSeed = 7;
constexpr absl::Duration kTwoHeartbeats = absl::Milliseconds(1100);

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

std::vector<int32_t> RandomPrompt(int tokens, int vocab, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& id : prompt) id = static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab));
  return prompt;
}

absl::StatusOr<std::vector<int>> ParseStreams(const std::string& text) {
  std::vector<int> streams;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int value = 0;
    if (!absl::SimpleAtoi(part, &value) || value < 1 || value > 4096) {
      return absl::InvalidArgumentError(
          absl::StrCat("--streams: \"", part, "\" is not a number from 1 to 4096"));
    }
    streams.push_back(value);
  }
  return streams;
}

struct WorkerTraffic {
  std::string name;
  double weight_bytes = 0;
  double bandwidth = 0;  // bytes per second; 0: not known
};

// Weight bytes that one step with a row of each stream reads (embedding rows are looked up, not
// read whole; of experts what is chosen, as if choices were even) and the read bandwidth of the
// workers, which take turns on one stream: the mean, weighted by what each reads. What they share
// they read at the same time.
struct Traffic {
  double weight_bytes = 0;
  double bandwidth = 0;  // bytes per second
  std::vector<WorkerTraffic> workers;
};

Traffic MeasureTraffic(const coordinator::Coordinator& job, int streams) {
  Traffic traffic;
  const auto plan = job.model().CurrentPlan();
  if (!plan.ok()) return traffic;
  double seconds = 0, shared_seconds = 0;
  for (const auto& worker : plan->workers) {
    double bytes = 0, shared_bytes = 0;
    for (const auto& module : plan->modules) {
      if (module.op.kind == OpKind::kEmbedding) continue;
      const coordinator::ModuleBytes own = coordinator::BytesOn(module, worker.device.name);
      const double all = static_cast<double>(module.packed_bytes + module.in_place_bytes);
      if (all <= 0) continue;
      (module.members.empty() ? bytes : shared_bytes) +=
          coordinator::BytesRead(job.model().config(), module, streams) *
          static_cast<double>(own.packed + own.in_place) / all;
    }
    traffic.weight_bytes += bytes + shared_bytes;
    traffic.workers.push_back({worker.device.name, bytes + shared_bytes});
    for (const auto& status : job.Status().workers) {
      if (status.name == worker.device.name && status.read_bandwidth_gb_per_s > 0) {
        const double bandwidth = status.read_bandwidth_gb_per_s * 1e9;
        traffic.workers.back().bandwidth = bandwidth;
        seconds += bytes / bandwidth;
        shared_seconds = std::max(shared_seconds, shared_bytes / bandwidth);
      }
    }
  }
  seconds += shared_seconds;
  if (seconds > 0) traffic.bandwidth = traffic.weight_bytes / seconds;
  return traffic;
}

absl::StatusOr<double> PrefillRate(const BenchFlags& flags, coordinator::Coordinator& job) {
  std::vector<double> rates;
  for (int r = 0; r < flags.repeat + 1; ++r) {
    const BatchRequest request{
        RandomPrompt(flags.prompt, job.model().config().vocab_size, kSeed + r), 1};
    const absl::Time start = absl::Now();
    DT_ASSIGN_OR_RETURN(auto results, RunBatch(job.model().engine(), {request}, 1));
    const double seconds = absl::ToDoubleSeconds(results[0].token_times[0] - start);
    if (r > 0) rates.push_back(flags.prompt / seconds);  // the first one warms up
  }
  return Median(rates);
}

std::vector<BatchRequest> StreamRequests(const BenchFlags& flags, int vocab_size, int streams,
                                         int max_tokens) {
  std::vector<BatchRequest> requests;
  for (int s = 0; s < streams; ++s) {
    requests.push_back({RandomPrompt(flags.depth, vocab_size, kSeed + 100 + s), max_tokens});
    requests.back().sampling = flags.sampling;
    requests.back().sampling.seed = kSeed + static_cast<uint64_t>(s);
  }
  return requests;
}

// All streams together, from the moment when each has its first token to the first one that ends.
// Their prompts are computed before, so that they find them in the prefix cache and begin together.
absl::StatusOr<double> DecodeRate(const BenchFlags& flags, coordinator::Coordinator& job,
                                  int streams) {
  coordinator::Engine* engine = job.model().engine();
  const int vocab_size = job.model().config().vocab_size;
  DT_RETURN_IF_ERROR(
      RunBatch(engine, StreamRequests(flags, vocab_size, streams, 1), streams).status());
  std::vector<double> rates;
  for (int r = 0; r < flags.repeat; ++r) {
    const auto requests = StreamRequests(flags, vocab_size, streams, flags.generate);
    DT_ASSIGN_OR_RETURN(auto results, RunBatch(engine, requests, streams));
    absl::Time from = absl::InfinitePast();
    absl::Time to = absl::InfiniteFuture();
    for (const auto& result : results) {
      from = std::max(from, result.token_times.front());
      to = std::min(to, result.token_times.back());
    }
    if (to <= from) {
      return absl::FailedPreconditionError(
          "the first stream ended before the last one had its first token: they need a larger "
          "--generate, or a smaller --depth");
    }
    int64_t tokens = 0;
    for (const auto& result : results) {
      for (absl::Time t : result.token_times) tokens += t > from && t <= to;
    }
    rates.push_back(static_cast<double>(tokens) / absl::ToDoubleSeconds(to - from));
  }
  return Median(rates);
}

// What each worker computed since it was loaded, as its heartbeats tell.
struct Computed {
  uint64_t steps = 0;
  double seconds = 0;
  int segments = 0;
};
using ComputedByWorker = std::map<std::string, Computed>;

ComputedByWorker ReadComputed(const coordinator::Coordinator& job) {
  absl::SleepFor(kTwoHeartbeats);
  ComputedByWorker all;
  for (const auto& worker : job.Status().workers) {
    Computed& computed = all[worker.name];
    computed.segments = static_cast<int>(worker.segments.size());
    for (const auto& segment : worker.segments) {
      computed.steps = std::max(computed.steps, segment.steps);
      computed.seconds += static_cast<double>(segment.busy_microseconds) * 1e-6;
    }
  }
  return all;
}

// For each worker what it reads for a step, and if it was measured how long it computed for one.
nlohmann::json WorkerFigures(const Traffic& traffic, const ComputedByWorker& before,
                             const ComputedByWorker& after) {
  nlohmann::json figures = nlohmann::json::array();
  for (const WorkerTraffic& worker : traffic.workers) {
    figures.push_back({{"name", worker.name},
                       {"bytes_per_step", worker.weight_bytes},
                       {"read_gb_per_s", worker.bandwidth * 1e-9}});
    const auto to = after.find(worker.name);
    if (to == after.end()) continue;
    Computed from;  // where it is not in `before`, it had computed nothing
    if (const auto at = before.find(worker.name); at != before.end()) from = at->second;
    if (to->second.steps <= from.steps) continue;
    figures.back()["segments"] = to->second.segments;
    figures.back()["computed_ms_per_step"] = 1e3 * (to->second.seconds - from.seconds) /
                                             static_cast<double>(to->second.steps - from.steps);
  }
  return figures;
}

absl::Status Replay(const BenchFlags& flags) {
  BenchTraceFlags trace = flags.trace;
  if (!absl::ParseDuration(flags.patience, &trace.patience) ||
      trace.patience <= absl::ZeroDuration() || trace.patience > absl::Hours(24 * 365)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--patience must be a time as in 90s or 4h, got `", flags.patience, "`"));
  }
  return BenchTrace(trace, flags.job);
}

absl::Status Bench(const BenchFlags& flags) {
  if (!flags.trace.path.empty()) return Replay(flags);
  if (!flags.trace.url.empty()) {
    return absl::InvalidArgumentError("--url: only a --trace is replayed on a server elsewhere");
  }
  DT_ASSIGN_OR_RETURN(const std::vector<int> streams, ParseStreams(flags.streams));
  LocalJobShape shape;
  shape.context_length = std::max(flags.prompt + 1, flags.depth + flags.generate) + 1;
  shape.max_batch_size = *std::max_element(streams.begin(), streams.end());
  DT_ASSIGN_OR_RETURN(auto job, StartLocalJob(flags.job, shape));
  DT_ASSIGN_OR_RETURN(const double prefill, PrefillRate(flags, *job));
  nlohmann::json json = {{"prefill_tokens_per_s", prefill}, {"decode", nlohmann::json::array()}};
  json["prompt"] = flags.prompt;
  json["generate"] = flags.generate;
  json["depth"] = flags.depth;
  if (!flags.json) std::printf("prefill %d tokens: %.1f tokens/s\n", flags.prompt, prefill);
  for (int s : streams) {
    const ComputedByWorker before = flags.segments ? ReadComputed(*job) : ComputedByWorker();
    DT_ASSIGN_OR_RETURN(const double rate, DecodeRate(flags, *job, s));
    const ComputedByWorker after = flags.segments ? ReadComputed(*job) : ComputedByWorker();
    const Traffic traffic = MeasureTraffic(*job, s);
    const double share =
        traffic.bandwidth > 0 ? traffic.weight_bytes * rate / s / traffic.bandwidth : 0;
    json["decode"].push_back({{"streams", s},
                              {"tokens_per_s", rate},
                              {"bytes_per_token", traffic.weight_bytes / s},
                              {"share_of_read_bandwidth", share},
                              {"workers", WorkerFigures(traffic, before, after)}});
    if (!flags.json) {
      std::printf("decode %d streams: %.1f tokens/s, %.1f MB a token, %.0f %% of read bandwidth\n",
                  s, rate, traffic.weight_bytes / s / 1e6, 100 * share);
    }
  }
  json["streamed_steps"] = job->Status().engine.streamed_steps;
  if (flags.json) std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddBench(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app->add_subcommand("bench", "Prefill and decode speed on token ids");
  AddLocalJobFlags(command, &flags->job);
  command->add_option("--prompt", flags->prompt, "prefill tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--generate", flags->generate, "tokens that each stream decodes")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--depth", flags->depth, "tokens in the cache before decoding starts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--streams", flags->streams, "numbers of streams, as in 1,4,8")
      ->capture_default_str();
  command
      ->add_option("--temperature", flags->sampling.temperature,
                   "how tokens are drawn while decoding; 0: the most likely one")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  command->add_option("--top-k", flags->sampling.top_k, "of the most likely ones so many; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--top-p", flags->sampling.top_p, "of the most likely ones that share")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  command->add_option("--repeat", flags->repeat, "runs, of which the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--json", flags->json, "machine-readable");
  command->add_flag(
      "--segments", flags->segments,
      "with --json: how long each worker computes for a step, too (some seconds more)");
  command->add_option(
      "--trace", flags->trace.path,
      "replay a trace (CSV: TIMESTAMP,ContextTokens,GeneratedTokens) instead; JSON");
  command->add_option("--url", flags->trace.url,
                      "replay the trace on a server with this --model that speaks OpenAI's "
                      "completions, such as http://127.0.0.1:8080, instead of a job of its own");
  command
      ->add_option("--patience", flags->patience,
                   "with that server, after the last request of the trace; answers that are not "
                   "whole then are cut and counted as unfinished")
      ->capture_default_str();
  command->add_option("--speed", flags->trace.options.speed, "of the trace: 2 is twice as fast")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--requests", flags->trace.options.most_requests, "of the trace; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--clip", flags->trace.options.most_prompt_tokens, "prompts of the trace")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--slots", flags->trace.slots, "sequences of one step of the trace")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->callback([flags, exit_code] {
    const absl::Status status = Bench(*flags);
    *exit_code = status.ok() ? 0 : ReportError(status);
  });
}

}  // namespace dovetail::tools
