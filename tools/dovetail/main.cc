// dovetail: the command line.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>

#include "tools/dovetail/commands.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
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
