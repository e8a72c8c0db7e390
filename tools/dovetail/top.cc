#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dovetail/v1/admin.grpc.pb.h"
#include "tools/dovetail/client.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/top_screen.h"

namespace dovetail::tools {
namespace {

constexpr char kHideCursor[] = "\033[?25l\033[2J";
constexpr char kShowCursor[] = "\033[?25h\n";
constexpr char kHome[] = "\033[H";
constexpr char kEndOfLine[] = "\033[K\n";
constexpr char kClearBelow[] = "\033[J";

std::atomic<bool> g_stop{false};

struct TopFlags {
  ClientFlags client;
  double interval_s = 1;
  int count = 0;  // 0: until a signal
};

TopShape TerminalShape(bool terminal) {
  TopShape shape;
  winsize size = {};
  if (terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    shape.columns = size.ws_col;
    shape.rows = size.ws_row - 1;
  }
  shape.colour = terminal;
  return shape;
}

void Draw(const std::vector<std::string>& lines, bool terminal) {
  std::string frame = terminal ? kHome : "";
  for (const std::string& line : lines) absl::StrAppend(&frame, line, terminal ? kEndOfLine : "\n");
  if (terminal) absl::StrAppend(&frame, kClearBelow);
  std::fwrite(frame.data(), 1, frame.size(), stdout);
  std::fflush(stdout);
}

absl::Status GetStatus(v1::AdminService::Stub* stub, const TopFlags& flags,
                       v1::GetStatusResponse* response) {
  grpc::ClientContext context;
  PrepareCall(flags.client, std::chrono::seconds(5), &context);
  return ClientStatus(stub->GetStatus(&context, {}, response), flags.client);
}

absl::Status Watch(v1::AdminService::Stub* stub, const TopFlags& flags, bool terminal) {
  v1::GetStatusResponse before;
  absl::Time before_at = absl::Now();
  if (absl::Status s = GetStatus(stub, flags, &before); !s.ok()) return s;
  if (terminal) std::fputs(kHideCursor, stdout);
  absl::Status status;
  for (int frames = 0; !g_stop && (flags.count == 0 || frames < flags.count); ++frames) {
    // In slices, so that a signal ends it at once.
    const absl::Time next = absl::Now() + absl::Seconds(flags.interval_s);
    while (!g_stop && absl::Now() < next) {
      absl::SleepFor(std::min(absl::Milliseconds(50), next - absl::Now()));
    }
    v1::GetStatusResponse now;
    status = GetStatus(stub, flags, &now);
    if (!status.ok()) break;
    const absl::Time now_at = absl::Now();
    Draw(TopScreen(before, now, absl::ToDoubleSeconds(now_at - before_at), TerminalShape(terminal)),
         terminal);
    before = std::move(now);
    before_at = now_at;
  }
  if (terminal) std::fputs(kShowCursor, stdout);
  return status;
}

int Top(const TopFlags& flags) {
  const auto channel = Dial(flags.client);
  if (!channel.ok()) return ReportError(channel.status());
  for (int sig : {SIGINT, SIGTERM}) {
    struct sigaction action = {};
    action.sa_handler = [](int) { g_stop = true; };
    ::sigaction(sig, &action, nullptr);
  }
  auto stub = v1::AdminService::NewStub(*channel);
  const absl::Status status = Watch(stub.get(), flags, ::isatty(STDOUT_FILENO) == 1);
  return status.ok() ? 0 : ReportError(status);
}

}  // namespace

void AddTop(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<TopFlags>();
  CLI::App* command = app->add_subcommand("top", "A live screen of a running server");
  AddClientFlags(command, &flags->client);
  command->add_option("--interval", flags->interval_s, "seconds between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_option("--count", flags->count, "end after this many screens; 0: Ctrl-C ends it")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback([flags, exit_code] { *exit_code = Top(*flags); });
}

}  // namespace dovetail::tools
