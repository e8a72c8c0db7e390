#include "tools/dovetail/bench_trace.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>

#include "base/status_macros.h"
#include "model/model_config.h"
#include "tools/dovetail/batch_run.h"
#include "tools/dovetail/http_replay.h"

namespace dovetail::tools {
namespace {

constexpr uint64_t kSeed = 7;
constexpr absl::Duration kPatience = absl::Hours(4);  // with one request of a server elsewhere

std::vector<ReplayRequest> MakeRequests(const std::vector<TraceRequest>& trace, int vocab_size) {
  std::mt19937_64 random(kSeed);
  std::vector<ReplayRequest> requests;
  for (const TraceRequest& entry : trace) {
    ReplayRequest& request = requests.emplace_back();
    request.prompt.resize(static_cast<size_t>(entry.prompt_tokens));
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
    }
    request.max_tokens = entry.generated_tokens;
    request.at = entry.at;
  }
  return requests;
}

nlohmann::json Percentiles(std::vector<double>* seconds) {
  return {{"p50", 1e3 * Percentile(seconds, 0.50)},
          {"p95", 1e3 * Percentile(seconds, 0.95)},
          {"p99", 1e3 * Percentile(seconds, 0.99)}};
}

nlohmann::json Report(const BenchTraceFlags& flags, const std::vector<TraceRequest>& trace,
                      const std::vector<ReplayAnswer>& results) {
  std::vector<double> first_token;
  std::vector<double> between;
  absl::Time start = absl::InfiniteFuture();
  absl::Time end = absl::InfinitePast();
  int64_t prompt_tokens = 0;
  int64_t generated = 0;
  int good = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const std::vector<absl::Time>& times = results[i].text_times;
    const int tokens = results[i].generated_tokens;
    prompt_tokens += trace[i].prompt_tokens;
    generated += tokens;
    start = std::min(start, results[i].submitted);
    end = std::max(end, times.back());
    first_token.push_back(absl::ToDoubleSeconds(times.front() - results[i].submitted));
    for (size_t t = 1; t < times.size(); ++t) {
      between.push_back(absl::ToDoubleSeconds(times[t] - times[t - 1]));
    }
    const double mean =
        tokens > 1 ? absl::ToDoubleSeconds(times.back() - times.front()) / (tokens - 1) : 0;
    good += first_token.back() <= flags.ttft_seconds && mean <= flags.itl_seconds ? 1 : 0;
  }
  const double seconds = absl::ToDoubleSeconds(end - start);
  const double count = static_cast<double>(results.size());
  nlohmann::json json;
  json["requests"] = results.size();
  json["speed"] = flags.options.speed;
  json["seconds"] = seconds;
  json["prompt_tokens"] = prompt_tokens;
  json["generated_tokens"] = generated;
  json["generated_tokens_per_s"] = static_cast<double>(generated) / seconds;
  json["requests_per_s"] = count / seconds;
  json["goodput"] = {{"requests_per_s", good / seconds},
                     {"share", good / count},
                     {"ttft_limit_ms", 1e3 * flags.ttft_seconds},
                     {"itl_limit_ms", 1e3 * flags.itl_seconds}};
  json["ttft_ms"] = Percentiles(&first_token);
  json["itl_ms"] = Percentiles(&between);
  return json;
}

// A job of this process, asked without HTTP.
absl::StatusOr<nlohmann::json> ReplayLocally(const BenchTraceFlags& flags,
                                             const std::vector<TraceRequest>& trace,
                                             const LocalJobFlags& job_flags) {
  LocalJobShape shape;
  shape.max_batch_size = flags.slots;
  for (const TraceRequest& request : trace) {
    shape.context_length =
        std::max(shape.context_length, request.prompt_tokens + request.generated_tokens + 1);
  }
  DT_ASSIGN_OR_RETURN(auto job, StartLocalJob(job_flags, shape));
  std::vector<BatchRequest> requests;
  for (ReplayRequest& request : MakeRequests(trace, job->model().config().vocab_size)) {
    BatchRequest& made = requests.emplace_back();
    made.prompt = std::move(request.prompt);
    made.max_tokens = request.max_tokens;
    made.at = request.at;
  }
  DT_ASSIGN_OR_RETURN(std::vector<BatchResult> results,
                      RunBatch(job->model().engine(), requests, static_cast<int>(requests.size())));
  std::vector<ReplayAnswer> answers;
  for (BatchResult& result : results) {
    answers.push_back(
        {result.submitted, std::move(result.token_times), static_cast<int>(result.tokens.size())});
  }
  nlohmann::json json = Report(flags, trace, answers);
  const coordinator::EngineStats stats = job->model().engine()->stats();
  json["preemptions"] = stats.preemptions;
  json["decode_lanes"] = stats.decode_lanes;
  return json;
}

// A server that runs, with that model.
absl::StatusOr<nlohmann::json> ReplayElsewhere(const BenchTraceFlags& flags,
                                               const std::vector<TraceRequest>& trace,
                                               const std::string& model_path) {
  DT_ASSIGN_OR_RETURN(const HttpTarget target, ParseHttpUrl(flags.url));
  DT_ASSIGN_OR_RETURN(const model::ModelFile model, model::OpenModelFile(model_path));
  DT_ASSIGN_OR_RETURN(
      const std::vector<ReplayAnswer> answers,
      ReplayOverHttp(target, MakeRequests(trace, model.config.vocab_size), kPatience));
  return Report(flags, trace, answers);
}

}  // namespace

absl::Status BenchTrace(const BenchTraceFlags& flags, const LocalJobFlags& job_flags) {
  DT_ASSIGN_OR_RETURN(const std::vector<TraceRequest> trace, ReadTrace(flags.path, flags.options));
  DT_ASSIGN_OR_RETURN(const nlohmann::json json,
                      flags.url.empty() ? ReplayLocally(flags, trace, job_flags)
                                        : ReplayElsewhere(flags, trace, job_flags.model));
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

}  // namespace dovetail::tools
