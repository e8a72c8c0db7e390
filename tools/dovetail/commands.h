// The subcommands of `dovetail`. Each Add* function registers its options and a callback that
// stores the exit status: 0 success, 1 failure while running, 2 bad input, 3 does not fit.
#ifndef DOVETAIL_TOOLS_DOVETAIL_COMMANDS_H_
#define DOVETAIL_TOOLS_DOVETAIL_COMMANDS_H_

namespace CLI {
class App;
}

namespace dovetail::tools {

void AddInspect(CLI::App* app, int* exit_code);  // inspect.cc
void AddRules(CLI::App* app, int* exit_code);    // rules.cc
void AddServe(CLI::App* app, int* exit_code);    // serve.cc
void AddPlan(CLI::App* app, int* exit_code);     // plan.cc
void AddExplain(CLI::App* app, int* exit_code);  // plan.cc
void AddEval(CLI::App* app, int* exit_code);     // eval.cc
void AddBench(CLI::App* app, int* exit_code);    // bench.cc
void AddChat(CLI::App* app, int* exit_code);     // chat.cc
void AddStatus(CLI::App* app, int* exit_code);   // status.cc
void AddTop(CLI::App* app, int* exit_code);      // top.cc

}  // namespace dovetail::tools

#endif  // DOVETAIL_TOOLS_DOVETAIL_COMMANDS_H_
