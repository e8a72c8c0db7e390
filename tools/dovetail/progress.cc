#include "tools/dovetail/progress.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace dovetail::tools {
namespace {

using coordinator::ServingState;

std::string Describe(const coordinator::StatusSnapshot& status, bool fine) {
  if (!status.models.empty()) {
    return absl::StrJoin(status.models, ";  ",
                         [&](std::string* out, const coordinator::StatusSnapshot& model) {
                           absl::StrAppend(out, model.model, " ", Describe(model, fine));
                         });
  }
  std::string text = StateName(status.state);
  if (status.state == ServingState::kWaitingForWorkers) {
    for (const auto& w : status.workers) {
      absl::StrAppend(&text, "  ", w.name, w.attached ? " here" : " ...");
    }
  } else if (status.state == ServingState::kLoading) {
    for (const auto& w : status.workers) {
      if (w.load_bytes_total == 0) continue;
      int percent = static_cast<int>(100.0 * w.load_bytes_done / w.load_bytes_total);
      if (!fine) percent = percent / 10 * 10;
      absl::StrAppendFormat(&text, "  %s %d %% of %.1f MB", w.name, percent,
                            w.load_bytes_total / 1e6);
    }
  } else if (!status.message.empty()) {
    absl::StrAppend(&text, ": ", status.message);
  }
  return text;
}

}  // namespace

const char* StateName(ServingState state) {
  switch (state) {
    case ServingState::kWaitingForWorkers:
      return "waiting for workers";
    case ServingState::kLoading:
      return "loading";
    case ServingState::kReady:
      return "ready";
    case ServingState::kRecovering:
      return "recovering";
    case ServingState::kDraining:
      return "draining";
    case ServingState::kFailed:
      return "failed";
  }
  return "unknown";
}

ProgressPrinter::ProgressPrinter() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressPrinter::Show(const coordinator::StatusSnapshot& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string text = Describe(status, terminal_);
  if (text == last_) return;
  last_ = text;
  const bool passing =
      status.state == ServingState::kWaitingForWorkers || status.state == ServingState::kLoading;
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", text.c_str());
    return;
  }
  std::fprintf(stderr, "\r\033[K%s%s", text.c_str(), passing ? "" : "\n");
  std::fflush(stderr);
}

}  // namespace dovetail::tools
