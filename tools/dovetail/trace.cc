#include "tools/dovetail/trace.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace dovetail::tools {
namespace {

constexpr char kTimeFormat[] = "%Y-%m-%d %H:%M:%E*S";
constexpr int kMostTokens = 1 << 24;

absl::Status ParseLine(absl::string_view line, absl::Time* time, TraceRequest* request) {
  const std::vector<std::string> fields = absl::StrSplit(line, ',');
  if (fields.size() != 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected TIMESTAMP,ContextTokens,GeneratedTokens, got \"", line, "\""));
  }
  std::string error;
  if (!absl::ParseTime(kTimeFormat, fields[0], time, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", fields[0], "\" is not a time: ", error));
  }
  if (!absl::SimpleAtoi(fields[1], &request->prompt_tokens) ||
      !absl::SimpleAtoi(fields[2], &request->generated_tokens) || request->prompt_tokens < 1 ||
      request->generated_tokens < 1 || request->prompt_tokens > kMostTokens ||
      request->generated_tokens > kMostTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", fields[1], ",", fields[2], "\" are not two numbers of tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TraceRequest>> ParseTrace(absl::string_view csv, const std::string& name,
                                                     const TraceOptions& options) {
  std::vector<TraceRequest> requests;
  absl::Time first;
  absl::Time latest = absl::InfinitePast();
  int number = 0;
  for (absl::string_view line : absl::StrSplit(csv, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (++number == 1 || line.empty()) continue;
    if (options.most_requests > 0 && static_cast<int>(requests.size()) == options.most_requests) {
      break;
    }
    absl::Time time;
    TraceRequest request;
    absl::Status parsed = ParseLine(line, &time, &request);
    if (parsed.ok() && time < latest) {
      parsed = absl::InvalidArgumentError("the request came before the one above");
    }
    if (!parsed.ok()) return Annotate(parsed, absl::StrCat(name, ":", number));
    latest = time;
    if (requests.empty()) first = time;
    request.at = (time - first) / options.speed;
    request.prompt_tokens = std::min(request.prompt_tokens, options.most_prompt_tokens);
    requests.push_back(request);
  }
  if (requests.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": there are no requests in it"));
  }
  return requests;
}

absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path,
                                                    const TraceOptions& options) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": the trace cannot be read"));
  std::stringstream text;
  text << in.rdbuf();
  return ParseTrace(text.str(), path, options);
}

double Percentile(std::vector<double>* values, double share) {
  if (values->empty()) return 0;
  std::sort(values->begin(), values->end());
  const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(values->size())));
  return (*values)[static_cast<size_t>(std::max<int64_t>(rank, 1) - 1)];
}

}  // namespace dovetail::tools
