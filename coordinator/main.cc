// dovetail-coordinator: plans, watches workers and serves. Workers are started by someone else
// (`dovetail serve`, a compose file, Kubernetes). See --help and docs/architecture.md.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/config_flags.h"
#include "coordinator/coordinator.h"
#include "coordinator/stop_signals.h"

namespace dovetail::coordinator {
namespace {

constexpr int kExitFault = 1;
constexpr int kExitBadInput = 2;
constexpr int kExitDoesNotFit = 3;

int ReportError(const absl::Status& status) {
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    std::fprintf(stderr, "dovetail-coordinator: %.*s\n", static_cast<int>(line.size()),
                 line.data());
  }
  if (absl::IsResourceExhausted(status)) return kExitDoesNotFit;
  const bool bad_input = absl::IsInvalidArgument(status) || absl::IsNotFound(status);
  return bad_input ? kExitBadInput : kExitFault;
}

int Serve(const ServeConfig& config) {
  auto started = Coordinator::Start(config, CoordinatorOptions());
  if (!started.ok()) return ReportError(started.status());
  Coordinator& coordinator = **started;
  absl::Status status = coordinator.WaitStopped(StopAsked);
  if (!status.ok()) {
    // It stays up, so that GetStatus and /health can say why; it never recovers by itself.
    ReportError(status);
    while (!StopAsked() && !coordinator.exit_requested()) {
      absl::SleepFor(absl::Milliseconds(200));
    }
  }
  const int left = DrainAndShutdown(&coordinator, config.drain_timeout);
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
  InstallStopSignals();
  return Serve(*config);
}

}  // namespace
}  // namespace dovetail::coordinator

int main(int argc, char** argv) { return dovetail::coordinator::Main(argc, argv); }
