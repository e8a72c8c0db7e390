#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "coordinator/config_flags.h"
#include "coordinator/coordinator.h"
#include "coordinator/stop_signals.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"
#include "tools/dovetail/progress.h"

namespace dovetail::tools {
namespace {

using coordinator::Coordinator;

// Waits for the workers, but not beyond a signal.
absl::Status WaitReadyOrStopped(Coordinator* coordinator) {
  while (!coordinator::StopAsked()) {
    const absl::Status status = coordinator->WaitReady(absl::Milliseconds(200));
    if (!absl::IsDeadlineExceeded(status)) return status;
  }
  return absl::CancelledError("stopped before it was ready");
}

void Announce(const Coordinator& coordinator, const coordinator::ServeConfig& config) {
  // The line that scripts wait for.
  std::printf("ready: http://%s:%d/v1  grpc %s:%d\n", config.listen.c_str(),
              coordinator.http_port(), config.listen.c_str(), coordinator.grpc_port());
  std::fflush(stdout);
}

int Serve(const coordinator::ConfigFlags& flags) {
  const auto config = flags.Load();
  if (!config.ok()) return ReportError(config.status());
  if (const absl::Status s = InitLogging("serve", config->log_level); !s.ok()) {
    return ReportError(s);
  }
  coordinator::InstallStopSignals();
  coordinator::CoordinatorOptions options;
  options.worker_binary = SiblingBinary("dovetail-worker");
  auto progress = std::make_shared<ProgressPrinter>();
  options.on_progress = [progress](const coordinator::StatusSnapshot& s) { progress->Show(s); };
  auto started = Coordinator::Start(*config, std::move(options));
  if (!started.ok()) return ReportError(started.status());
  Coordinator& coordinator = **started;
  absl::Status status = WaitReadyOrStopped(&coordinator);
  if (status.ok()) {
    Announce(coordinator, *config);
    status = coordinator.WaitStopped([] { return coordinator::StopAsked(); });
  }
  const int left = coordinator::DrainAndShutdown(&coordinator, config->drain_timeout);
  if (left > 0) LogWarn(absl::StrCat(left, " requests were not finished"));
  if (absl::IsCancelled(status)) return 0;
  return status.ok() ? 0 : ReportError(status);
}

}  // namespace

void AddServe(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<coordinator::ConfigFlags>();
  CLI::App* command = app->add_subcommand("serve", "Coordinator and local workers in one command");
  flags->AddTo(command);
  command->callback([flags, exit_code] { *exit_code = Serve(*flags); });
}

}  // namespace dovetail::tools
