// ConfigFlags: the command-line form of ServeConfig, shared by dovetail-coordinator and `dovetail
// serve`.
//
// Adds --config FILE and one flag for every key of the configuration to a CLI::App. Values stay
// text: LoadConfig checks them together with the file, so that every mistake is reported at once.
#ifndef DOVETAIL_COORDINATOR_CONFIG_FLAGS_H_
#define DOVETAIL_COORDINATOR_CONFIG_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/config.h"

namespace CLI {
class App;
}  // namespace CLI

namespace dovetail::coordinator {

class ConfigFlags {
 public:
  // This object must live until `app` has parsed.
  void AddTo(CLI::App* app);

  // The file and the flags over it, as parsed.
  absl::StatusOr<ServeConfig> Load(bool needs_model = true) const;

  const std::string& path() const { return path_; }
  // In the order of the command line.
  const std::vector<ConfigOverride>& overrides() const { return overrides_; }

 private:
  void AddForeignFlag(CLI::App* app, absl::string_view name);

  std::string path_;
  std::vector<ConfigOverride> overrides_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CONFIG_FLAGS_H_
