#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "model/gguf/gguf_file.h"
#include "model/inspect.h"
#include "tools/dovetail/commands.h"
#include "tools/dovetail/local_job.h"

namespace dovetail::tools {
namespace {

struct Flags {
  std::string file;
  bool json = false;
};

int Inspect(const Flags& flags) {
  auto file = model::GgufFile::Open(flags.file);
  if (!file.ok()) return ReportError(file.status());
  std::string text;
  if (flags.json) {
    text = model::InspectJson(**file) + "\n";
  } else {
    auto described = model::InspectText(**file);
    if (!described.ok()) return ReportError(described.status());
    text = *std::move(described);
  }
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : 1;
}

}  // namespace

void AddInspect(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app->add_subcommand("inspect", "Show metadata and tensors of a GGUF file");
  command->add_option("file", flags->file, "GGUF file, any shard, or a directory")->required();
  command->add_flag("--json", flags->json, "machine-readable");
  command->callback([flags, exit_code] { *exit_code = Inspect(*flags); });
}

}  // namespace dovetail::tools
