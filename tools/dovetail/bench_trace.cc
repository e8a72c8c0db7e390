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

bool IsGood(const BenchTraceFlags& flags, const ReplayAnswer& answer) {
  if (!answer.whole) return false;
  const absl::Time first = answer.text_times.front();
  const absl::Duration rest = answer.text_times.back() - first;
  return absl::ToDoubleSeconds(first - answer.submitted) <= flags.ttft_seconds &&
         absl::ToDoubleSeconds(rest) <= flags.itl_seconds * (answer.generated_tokens - 1);
}

// `cut`: when patience ended, for answers that are not whole.
nlohmann::json Report(const BenchTraceFlags& flags, const std::vector<TraceRequest>& trace,
                      const std::vector<ReplayAnswer>& answers, absl::Time cut) {
  std::vector<double> first_token;
  std::vector<double> between;
  absl::Time start = absl::InfiniteFuture();
  absl::Time end = absl::InfinitePast();
  int64_t prompt_tokens = 0;
  int64_t generated = 0;
  int good = 0;
  int unfinished = 0;
  int without_first_token = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::vector<absl::Time>& times = answers[i].text_times;
    prompt_tokens += trace[i].prompt_tokens;
    generated += answers[i].generated_tokens;
    start = std::min(start, answers[i].submitted);
    end = std::max(end, answers[i].whole ? times.back() : cut);
    const absl::Time first = times.empty() ? cut : times.front();
    first_token.push_back(absl::ToDoubleSeconds(first - answers[i].submitted));
    for (size_t t = 1; t < times.size(); ++t) {
      between.push_back(absl::ToDoubleSeconds(times[t] - times[t - 1]));
    }
    good += IsGood(flags, answers[i]) ? 1 : 0;
    unfinished += answers[i].whole ? 0 : 1;
    without_first_token += times.empty() ? 1 : 0;
  }
  const double seconds = absl::ToDoubleSeconds(end - start);
  const double count = static_cast<double>(answers.size());
  return {{"requests", answers.size()},
          {"unfinished", unfinished},
          {"without_first_token", without_first_token},
          {"speed", flags.options.speed},
          {"seconds", seconds},
          {"prompt_tokens", prompt_tokens},
          {"generated_tokens", generated},
          {"generated_tokens_per_s", static_cast<double>(generated) / seconds},
          {"requests_per_s", (count - unfinished) / seconds},
          {"goodput",
           {{"requests_per_s", good / seconds},
            {"share", good / count},
            {"ttft_limit_ms", 1e3 * flags.ttft_seconds},
            {"itl_limit_ms", 1e3 * flags.itl_seconds}}},
          {"ttft_ms", Percentiles(&first_token)},
          {"itl_ms", Percentiles(&between)}};
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
    answers.push_back({result.submitted, std::move(result.token_times),
                       static_cast<int>(result.tokens.size()), /*whole=*/true});
  }
  nlohmann::json json = Report(flags, trace, answers, absl::InfiniteFuture());
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
      ReplayOverHttp(target, MakeRequests(trace, model.config.vocab_size), flags.patience));
  return Report(flags, trace, answers, absl::Now());
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
