// dovetail: the command line.
#include <grpc/grpc.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <thread>

#include "tools/dovetail/commands.h"

namespace {

// When one of gRPC's own threads lets the last channel go, gRPC ends on a thread that nobody waits
// for. It must not run on while the return from main takes down the libraries it uses.
void WaitForGrpc() {
  using std::chrono::milliseconds;
  constexpr milliseconds kPatience{2000};
  const auto begin = std::chrono::steady_clock::now();
  while (grpc_is_initialized() != 0 && std::chrono::steady_clock::now() - begin < kPatience) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  grpc_init();  // takes over from that thread, if it has not begun
  grpc_shutdown_blocking();
}

int Run(int argc, char** argv) {
  CLI::App app{"Dovetail: large language models cut over several workers"};
  app.require_subcommand(1);
  app.set_version_flag("--version", DOVETAIL_VERSION);
  int exit_code = 0;
  dovetail::tools::AddServe(&app, &exit_code);
  dovetail::tools::AddChat(&app, &exit_code);
  dovetail::tools::AddStatus(&app, &exit_code);
  dovetail::tools::AddTop(&app, &exit_code);
  dovetail::tools::AddPlan(&app, &exit_code);
  dovetail::tools::AddExplain(&app, &exit_code);
  dovetail::tools::AddInspect(&app, &exit_code);
  dovetail::tools::AddRules(&app, &exit_code);
  dovetail::tools::AddEval(&app, &exit_code);
  dovetail::tools::AddBench(&app, &exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dovetail: %s\n", e.what());
    return 1;
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const int exit_code = Run(argc, argv);
  WaitForGrpc();
  return exit_code;
}
