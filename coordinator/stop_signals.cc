#include "coordinator/stop_signals.h"

#include <signal.h>

#include <algorithm>
#include <atomic>

namespace dovetail::coordinator {
namespace {

std::atomic<int> g_signals{0};
static_assert(std::atomic<int>::is_always_lock_free);

void OnSignal(int) { g_signals.fetch_add(1); }

}  // namespace

void InstallStopSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool StopAsked() { return g_signals.load() > 0; }

int DrainAndShutdown(Coordinator* coordinator, absl::Duration timeout) {
  const int signals = g_signals.load();
  const absl::Time end = absl::Now() + timeout;
  int left = 0;
  do {
    left = coordinator->Drain(std::min(absl::Milliseconds(200), end - absl::Now()));
  } while (left > 0 && absl::Now() < end && g_signals.load() == signals);
  return coordinator->Shutdown(absl::ZeroDuration());
}

}  // namespace dovetail::coordinator
