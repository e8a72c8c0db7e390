#include "tools/dovetail/top_screen.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "dovetail/v1/admin.pb.h"

namespace dovetail::tools {
namespace {

constexpr int kBarWidth = 20;

constexpr char kBold[] = "\033[1m";
constexpr char kGreen[] = "\033[32m";
constexpr char kYellow[] = "\033[33m";
constexpr char kRed[] = "\033[31m";
constexpr char kPlain[] = "\033[0m";

// A line that knows its visible width, so that colours do not count and it can be cut.
class ScreenLine {
 public:
  explicit ScreenLine(const TopShape& shape) : shape_(shape) {}

  ScreenLine& Add(absl::string_view text, absl::string_view colour = "") {
    const size_t room = static_cast<size_t>(std::max(0, shape_.columns - width_));
    text = text.substr(0, room);
    const bool coloured = shape_.colour && !colour.empty() && !text.empty();
    absl::StrAppend(&line_, coloured ? colour : "", text, coloured ? kPlain : "");
    width_ += static_cast<int>(text.size());
    return *this;
  }
  const std::string& text() const { return line_; }

 private:
  const TopShape& shape_;
  std::string line_;
  int width_ = 0;
};

absl::string_view ColourOf(double fraction) {
  return fraction < 0.75 ? kGreen : fraction < 0.95 ? kYellow : kRed;
}

std::string StateWord(v1::ServingState state) {
  const std::string& name = v1::ServingState_Name(state);
  return absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripPrefix(name, "SERVING_STATE_")),
                             {{"_", " "}});
}

// What came in between, or 0 where a counter began anew.
double Rate(uint64_t before, uint64_t now, double seconds) {
  return now < before || seconds <= 0 ? 0 : static_cast<double>(now - before) / seconds;
}

const v1::WorkerStatus* FindWorker(const v1::GetStatusResponse& status, const std::string& name) {
  for (const v1::WorkerStatus& worker : status.workers()) {
    if (worker.name() == name) return &worker;
  }
  return nullptr;
}

const v1::GetStatusResponse& FindModel(const v1::GetStatusResponse& status,
                                       const std::string& name) {
  for (const v1::GetStatusResponse& model : status.models()) {
    if (model.model() == name) return model;
  }
  return v1::GetStatusResponse::default_instance();
}

// Of a server with several models.
std::string ServerLine(const v1::GetStatusResponse& now, const TopShape& shape) {
  const bool ready = now.state() == v1::SERVING_STATE_READY;
  return ScreenLine(shape)
      .Add("dovetail  ", kBold)
      .Add(StateWord(now.state()), ready ? kGreen : kRed)
      .Add(
          absl::StrFormat("  %d models  up %s", now.models_size(), HumanTime(now.uptime_seconds())))
      .text();
}

std::string HeadLine(const v1::GetStatusResponse& now, const TopShape& shape) {
  const bool ready = now.state() == v1::SERVING_STATE_READY;
  return ScreenLine(shape)
      .Add("dovetail  ", kBold)
      .Add(StateWord(now.state()), ready ? kGreen : kRed)
      .Add(absl::StrFormat("  %s  up %s  epoch %d", now.model(), HumanTime(now.uptime_seconds()),
                           now.epoch()))
      .Add(now.message().empty() || ready ? "" : absl::StrCat("  ", now.message()), kYellow)
      .text();
}

std::string TokensLine(const v1::GetStatusResponse& before, const v1::GetStatusResponse& now,
                       double seconds, const TopShape& shape) {
  return ScreenLine(shape)
      .Add("tokens/s  ")
      .Add(
          absl::StrFormat("%.1f", Rate(before.generated_tokens(), now.generated_tokens(), seconds)),
          kBold)
      .Add(" generated, ")
      .Add(absl::StrFormat("%.1f", Rate(before.prompt_tokens(), now.prompt_tokens(), seconds)),
           kBold)
      .Add(absl::StrFormat(" of prompts   steps/s %.1f   in all %d generated, %d of prompts",
                           Rate(before.steps(), now.steps(), seconds), now.generated_tokens(),
                           now.prompt_tokens()))
      .text();
}

std::string StreamsLine(const v1::GetStatusResponse& now, const TopShape& shape) {
  return ScreenLine(shape)
      .Add("streams   ")
      .Add(absl::StrFormat("%d", now.running_sequences()), kBold)
      .Add(absl::StrFormat(" running, %d waiting   lanes %d   next first token in %.1f s   "
                           "preempted %d",
                           now.waiting_sequences(), now.lanes(), now.predicted_wait_seconds(),
                           now.preemptions()))
      .text();
}

std::string CacheLine(const v1::GetStatusResponse& now, const TopShape& shape) {
  const double used = now.kv_blocks_total() == 0
                          ? 0
                          : static_cast<double>(now.kv_blocks_used()) / now.kv_blocks_total();
  const double hits = now.prefix_queried_tokens() == 0
                          ? 0
                          : static_cast<double>(now.prefix_cached_tokens()) /
                                static_cast<double>(now.prefix_queried_tokens());
  return ScreenLine(shape)
      .Add("KV cache  ")
      .Add(Bar(used, kBarWidth), ColourOf(used))
      .Add(absl::StrFormat(" %d of %d blocks, %d kept for reuse   prefix hits %.0f %%",
                           now.kv_blocks_used(), now.kv_blocks_total(), now.kv_blocks_cached(),
                           100 * hits))
      .text();
}

std::string WorkerLine(const v1::WorkerStatus* before, const v1::WorkerStatus& now, double seconds,
                       const TopShape& shape) {
  ScreenLine line(shape);
  line.Add(absl::StrFormat("%-9s ", now.name()), kBold);
  if (!now.attached()) {
    return line.Add(absl::StrFormat("gone; lost %d times", now.restarts()), kRed).text();
  }
  if (now.load_bytes_done() < now.load_bytes_total()) {
    const double loaded =
        static_cast<double>(now.load_bytes_done()) / static_cast<double>(now.load_bytes_total());
    return line.Add(Bar(loaded, kBarWidth), kYellow)
        .Add(absl::StrFormat(" loaded %s of %s",
                             HumanBytes(static_cast<double>(now.load_bytes_done())),
                             HumanBytes(static_cast<double>(now.load_bytes_total()))))
        .text();
  }
  const double busy =
      before == nullptr
          ? 0
          : std::min(1.0,
                     Rate(before->busy_microseconds(), now.busy_microseconds(), seconds) / 1e6);
  const double steps = before == nullptr ? 0 : Rate(before->steps(), now.steps(), seconds);
  line.Add(Bar(busy, kBarWidth), kGreen)
      .Add(absl::StrFormat(" %3.0f %%  %7.1f  %9s %9s %9s  ", 100 * busy, steps,
                           HumanBytes(static_cast<double>(now.resident_bytes())),
                           HumanBytes(static_cast<double>(now.peak_resident_bytes())),
                           HumanBytes(static_cast<double>(now.planned_bytes()))))
      .Add(absl::StrFormat("%s x%d", now.isa(), now.num_threads()));
  if (now.restarts() > 0) line.Add(absl::StrFormat("  lost %d times", now.restarts()), kYellow);
  return line.text();
}

// Time per step of each segment, from before to now.
std::string SegmentsLine(const v1::WorkerStatus* before, const v1::WorkerStatus& now,
                         const TopShape& shape) {
  ScreenLine line(shape);
  line.Add("          ");
  for (int i = 0; i < now.segments_size(); ++i) {
    const v1::SegmentStatus& segment = now.segments(i);
    uint64_t steps = segment.steps();
    uint64_t busy = segment.busy_microseconds();
    const bool same = before != nullptr && i < before->segments_size() &&
                      before->segments(i).index() == segment.index() &&
                      before->segments(i).steps() <= steps;
    if (same) {
      steps -= before->segments(i).steps();
      busy -= before->segments(i).busy_microseconds();
    }
    if (steps == 0) continue;
    line.Add(absl::StrFormat("segment %d: %.2f ms  ", segment.index(),
                             static_cast<double>(busy) / static_cast<double>(steps) / 1e3));
  }
  return line.text();
}

// One model: what it does, and its workers.
void AddModel(const v1::GetStatusResponse& before, const v1::GetStatusResponse& now, double seconds,
              const TopShape& shape, std::vector<std::string>* out) {
  std::vector<std::string>& lines = *out;
  lines.push_back(HeadLine(now, shape));
  lines.push_back(TokensLine(before, now, seconds, shape));
  lines.push_back(StreamsLine(now, shape));
  lines.push_back(CacheLine(now, shape));
  lines.emplace_back();
  lines.push_back(
      ScreenLine(shape)
          .Add(absl::StrFormat("%-9s %-*s %5s  %7s  %9s %9s %9s  %s", "worker", kBarWidth + 2,
                               "busy", "", "steps/s", "in use", "peak", "planned", "kernels"),
               kBold)
          .text());
  for (const v1::WorkerStatus& worker : now.workers()) {
    const v1::WorkerStatus* earlier = FindWorker(before, worker.name());
    lines.push_back(WorkerLine(earlier, worker, seconds, shape));
    const std::string segments = SegmentsLine(earlier, worker, shape);
    if (worker.attached() && !absl::StripAsciiWhitespace(segments).empty()) {
      lines.push_back(segments);
    }
  }
}

}  // namespace

std::vector<std::string> TopScreen(const v1::GetStatusResponse& before,
                                   const v1::GetStatusResponse& now, double seconds,
                                   const TopShape& shape) {
  std::vector<std::string> lines;
  if (now.models_size() == 0) {
    AddModel(before, now, seconds, shape, &lines);
  } else {
    lines.push_back(ServerLine(now, shape));
    lines.push_back(TokensLine(before, now, seconds, shape));
    for (const v1::GetStatusResponse& model : now.models()) {
      lines.emplace_back();
      AddModel(FindModel(before, model.model()), model, seconds, shape, &lines);
    }
  }
  if (static_cast<int>(lines.size()) > shape.rows) lines.resize(static_cast<size_t>(shape.rows));
  return lines;
}

std::string Bar(double fraction, int width) {
  const double clamped = std::isnan(fraction) ? 0 : std::clamp(fraction, 0.0, 1.0);
  const int full = static_cast<int>(std::lround(clamped * width));
  return absl::StrCat("[", std::string(static_cast<size_t>(full), '#'),
                      std::string(static_cast<size_t>(width - full), '.'), "]");
}

std::string HumanBytes(double bytes) {
  if (bytes < 1000) return absl::StrFormat("%.0f B", bytes);
  for (const char* unit : {"kB", "MB", "GB"}) {
    bytes /= 1000;
    if (bytes < 10) return absl::StrFormat("%.1f %s", bytes, unit);
    if (bytes < 1000) return absl::StrFormat("%.0f %s", bytes, unit);
  }
  return absl::StrFormat("%.1f TB", bytes / 1000);
}

std::string HumanTime(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds);
  if (whole >= 3600) return absl::StrFormat("%dh %02dm", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return absl::StrFormat("%dm %02ds", whole / 60, whole % 60);
  return absl::StrFormat("%ds", whole);
}

}  // namespace dovetail::tools
