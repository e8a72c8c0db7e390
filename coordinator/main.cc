// dovetail-coordinator: plans, watches workers and serves. Workers are started by someone else
// (`dovetail serve`, a compose file, Kubernetes). See --help and docs/architecture.md.

#include <signal.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/config_flags.h"
#include "coordinator/coordinator.h"

namespace dovetail::coordinator {
namespace {

constexpr int kExitFault = 1;
constexpr int kExitBadInput = 2;

// Signals that have come. The first asks for an orderly end, the second for a quick one.
std::atomic<int> g_signals{0};
static_assert(std::atomic<int>::is_always_lock_free);

void OnSignal(int) { g_signals.fetch_add(1); }

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

int ReportError(const absl::Status& status) {
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    std::fprintf(stderr, "dovetail-coordinator: %.*s\n", static_cast<int>(line.size()),
                 line.data());
  }
  const bool bad_input = absl::IsInvalidArgument(status) || absl::IsNotFound(status);
  return bad_input ? kExitBadInput : kExitFault;
}

// Waits for running requests in slices, so that a second signal cuts it short.
int DrainUntilSignal(Coordinator* coordinator, absl::Duration timeout) {
  const int signals = g_signals.load();
  const absl::Time end = absl::Now() + timeout;
  int left = 0;
  do {
    left = coordinator->Drain(std::min(absl::Milliseconds(200), end - absl::Now()));
  } while (left > 0 && absl::Now() < end && g_signals.load() == signals);
  return left;
}

int Serve(const ServeConfig& config) {
  auto started = Coordinator::Start(config, CoordinatorOptions());
  if (!started.ok()) return ReportError(started.status());
  Coordinator& coordinator = **started;
  absl::Status status = coordinator.WaitStopped([] { return g_signals.load() > 0; });
  if (!status.ok()) {
    // It stays up, so that GetStatus and /health can say why; it never recovers by itself.
    ReportError(status);
    while (g_signals.load() == 0 && !coordinator.exit_requested()) {
      absl::SleepFor(absl::Milliseconds(200));
    }
  }
  DrainUntilSignal(&coordinator, config.drain_timeout);
  const int left = coordinator.Shutdown(absl::ZeroDuration());
  if (left > 0) LogWarn(absl::StrCat(left, " requests were not finished"));
  return status.ok() ? EXIT_SUCCESS : kExitFault;
}

int Main(int argc, char** argv) {
  CLI::App app{"The Dovetail coordinator: plans, watches workers, schedules and serves."};
  app.set_version_flag("--version", DOVETAIL_VERSION);
  ConfigFlags flags;
  flags.AddTo(&app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : kExitBadInput;
  }
  absl::StatusOr<ServeConfig> config = flags.Load();
  if (!config.ok()) return ReportError(config.status());
  config->spawn_workers = false;
  if (absl::Status s = InitLogging("coordinator", config->log_level); !s.ok())
    return ReportError(s);
  InstallSignalHandlers();
  return Serve(*config);
}

}  // namespace
}  // namespace dovetail::coordinator

int main(int argc, char** argv) { return dovetail::coordinator::Main(argc, argv); }
