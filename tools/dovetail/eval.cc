#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gguf/gguf_file.h"
#include "model/tokenizer/tokenizer.h"
#include "tools/dovetail/batch_run.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/token_lists.h"

namespace dovetail::tools {
namespace {

struct EvalFlags {
  LocalJobFlags job;
  std::string tokens;
  std::string out;
  std::string text;
  int batch = 0;  // 0: all at once
  int n = 16;
  int context = 512;
  int chunks = 0;  // 0: as many as the text has
  bool json = false;
};

using TokenLists = std::vector<std::vector<int32_t>>;

int LongestList(const TokenLists& lists) {
  size_t longest = 0;
  for (const auto& list : lists) longest = std::max(longest, list.size());
  return static_cast<int>(longest);
}

int BatchOf(const EvalFlags& flags, size_t lists) {
  return flags.batch > 0 ? std::min<int>(flags.batch, static_cast<int>(lists))
                         : static_cast<int>(lists);
}

// One job, all prompts, every row of logits handed to `on_logits` as it arrives.
absl::Status RunLogits(const EvalFlags& flags, const TokenLists& lists, const LogitsFn& on_logits) {
  const int batch = BatchOf(flags, lists.size());
  LocalJobShape shape;
  shape.context_length = LongestList(lists) + 1;
  shape.max_batch_size = batch;
  shape.max_logit_rows = flags.job.chunk;
  DT_ASSIGN_OR_RETURN(auto job, StartLocalJob(flags.job, shape));
  std::vector<BatchRequest> requests;
  for (const auto& list : lists) requests.push_back({list, 0, true});
  return RunBatch(job->model().engine(), requests, batch, on_logits).status();
}

absl::Status EvalLogits(const EvalFlags& flags) {
  DT_ASSIGN_OR_RETURN(const TokenLists lists, ReadTokenLists(flags.tokens));
  std::vector<int64_t> first_row;  // of each list, in the file
  int64_t rows = 0;
  for (const auto& list : lists) {
    first_row.push_back(rows);
    rows += static_cast<int64_t>(list.size());
  }
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(flags.out.c_str(), "wb"),
                                                      &std::fclose);
  if (out == nullptr) return absl::NotFoundError(absl::StrCat(flags.out, ": cannot be written"));
  bool written = true;
  const auto on_logits = [&](size_t index, int row, absl::Span<const float> values, int vocab) {
    const int64_t offset = (first_row[index] + row) * vocab * static_cast<int64_t>(sizeof(float));
    written = written && std::fseek(out.get(), offset, SEEK_SET) == 0 &&
              std::fwrite(values.data(), sizeof(float), values.size(), out.get()) == values.size();
  };
  DT_RETURN_IF_ERROR(RunLogits(flags, lists, on_logits));
  if (!written || std::fflush(out.get()) != 0) {
    return absl::DataLossError(absl::StrCat(flags.out, ": could not be written whole"));
  }
  return absl::OkStatus();
}

absl::Status EvalGreedy(const EvalFlags& flags) {
  DT_ASSIGN_OR_RETURN(const TokenLists lists, ReadTokenLists(flags.tokens));
  const int batch = BatchOf(flags, lists.size());
  LocalJobShape shape;
  shape.context_length = LongestList(lists) + flags.n;
  shape.max_batch_size = batch;
  DT_ASSIGN_OR_RETURN(auto job, StartLocalJob(flags.job, shape));
  std::vector<BatchRequest> requests;
  for (const auto& list : lists) requests.push_back({list, flags.n, false});
  DT_ASSIGN_OR_RETURN(auto results, RunBatch(job->model().engine(), requests, batch));
  nlohmann::json json = {{"tokens", nlohmann::json::array()}};
  for (const auto& result : results) json["tokens"].push_back(result.tokens);
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

// -log softmax(row)[target] in f64, the maximum taken out first.
double NegativeLogLikelihood(absl::Span<const float> row, int32_t target) {
  const double max = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float x : row) sum += std::exp(x - max);
  return std::log(sum) + max - row[static_cast<size_t>(target)];
}

absl::StatusOr<TokenLists> TextWindows(const EvalFlags& flags) {
  if (flags.context < 2) return absl::InvalidArgumentError("--context must be at least 2");
  DT_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(flags.text));
  DT_ASSIGN_OR_RETURN(auto file, model::GgufFile::Open(flags.job.model));
  DT_ASSIGN_OR_RETURN(auto tokenizer, model::Tokenizer::Create(*file));
  DT_ASSIGN_OR_RETURN(const auto ids, tokenizer->Encode(text, {true, false}));
  const size_t context = static_cast<size_t>(flags.context);
  size_t windows = ids.size() / context;
  if (windows == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags.text, ": ", ids.size(), " tokens do not fill one window of ", context));
  }
  if (flags.chunks > 0) windows = std::min(windows, static_cast<size_t>(flags.chunks));
  TokenLists lists;
  for (size_t w = 0; w < windows; ++w) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(w * context);
    lists.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(context));
  }
  return lists;
}

absl::Status EvalPerplexity(EvalFlags flags) {
  DT_ASSIGN_OR_RETURN(const TokenLists lists, TextWindows(flags));
  if (flags.batch == 0) flags.batch = 1;
  std::vector<double> nll(lists.size());
  const auto on_logits = [&](size_t index, int row, absl::Span<const float> values, int vocab) {
    const size_t v = static_cast<size_t>(vocab);
    for (size_t r = 0; r * v < values.size(); ++r) {
      const size_t next = static_cast<size_t>(row) + r + 1;
      if (next < lists[index].size()) {
        nll[index] += NegativeLogLikelihood(values.subspan(r * v, v), lists[index][next]);
      }
    }
  };
  DT_RETURN_IF_ERROR(RunLogits(flags, lists, on_logits));
  const int targets = flags.context - 1;
  double total = 0;
  for (double& chunk : nll) {
    chunk /= targets;
    total += chunk / static_cast<double>(nll.size());
  }
  const nlohmann::json json = {{"perplexity", std::exp(total)},
                               {"nll", nll},
                               {"tokens", static_cast<int64_t>(nll.size()) * targets}};
  if (flags.json) {
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("perplexity %.4f over %zu windows of %d tokens\n", std::exp(total), nll.size(),
                flags.context);
  }
  return absl::OkStatus();
}

int Finish(const absl::Status& status) { return status.ok() ? 0 : ReportError(status); }

}  // namespace

void AddEval(CLI::App* app, int* exit_code) {
  CLI::App* eval = app->add_subcommand("eval", "Logits, greedy tokens and perplexity of a model");
  eval->require_subcommand(1);
  auto flags = std::make_shared<EvalFlags>();

  CLI::App* logits = eval->add_subcommand("logits", "Every row of logits, little-endian f32");
  AddLocalJobFlags(logits, &flags->job);
  logits->add_option("--tokens", flags->tokens, "JSON list of lists of token ids")->required();
  logits->add_option("--out", flags->out, "file to write")->required();
  logits->add_option("--batch", flags->batch, "sequences computed together; 0: all");
  logits->callback([flags, exit_code] { *exit_code = Finish(EvalLogits(*flags)); });

  CLI::App* greedy = eval->add_subcommand("greedy", "The most likely continuation");
  AddLocalJobFlags(greedy, &flags->job);
  greedy->add_option("--tokens", flags->tokens, "JSON list of lists of token ids")->required();
  greedy->add_option("--n,-n", flags->n, "tokens to generate")->check(CLI::PositiveNumber);
  greedy->add_option("--batch", flags->batch, "sequences computed together; 0: all");
  greedy->add_flag("--json", flags->json, "the only form of output there is");
  greedy->callback([flags, exit_code] { *exit_code = Finish(EvalGreedy(*flags)); });

  CLI::App* perplexity = eval->add_subcommand("perplexity", "How well the model predicts a text");
  AddLocalJobFlags(perplexity, &flags->job);
  perplexity->add_option("--text", flags->text, "text file")->required();
  perplexity->add_option("--context", flags->context, "tokens of a window")->capture_default_str();
  perplexity->add_option("--chunks", flags->chunks, "windows; 0: all that fit");
  perplexity->add_option("--batch", flags->batch, "windows computed together; default 1");
  perplexity->add_flag("--json", flags->json, "machine-readable");
  perplexity->callback([flags, exit_code] { *exit_code = Finish(EvalPerplexity(*flags)); });
}

}  // namespace dovetail::tools
