// The settings of ServeConfig one by one: names, KTransformers' names, and how each is read and
// checked.
//
// config.cc walks a file and the flags with this table. Pure functions; thread-safe.
#ifndef DOVETAIL_COORDINATOR_CONFIG_FIELDS_H_
#define DOVETAIL_COORDINATOR_CONFIG_FIELDS_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/yaml_reader.h"
#include "coordinator/config.h"

namespace dovetail::coordinator {

// What is being read, and where each field was set (for mistakes that involve two of them).
struct ConfigDraft {
  ServeConfig config;
  int total_threads = 0;                     // of cpu_infer
  std::map<std::string, std::string> where;  // field -> "file:line:col" or "--flag"
};

// Where a setting may stand in a file with several models.
enum class ConfigScope {
  kServer,    // at the top
  kModel,     // in an entry of `models`, and at the top, where it is what all entries begin with
  kOneModel,  // in an entry of `models`
  kAlone,     // nowhere: it speaks of the only model
};

struct ConfigField {
  absl::string_view name;
  absl::string_view alias;  // KTransformers' name, or empty
  ConfigScope scope;
  // Sets the field from a value of the file or of a flag; `name` is the key that was used.
  std::function<void(const YamlNode&, absl::string_view name, ConfigDraft*, Mistakes*)> read;
};

const std::vector<ConfigField>& ConfigFields();
const ConfigField* FindConfigField(absl::string_view name);  // by name or alias; nullptr: unknown
std::vector<absl::string_view> ConfigNames();                // names and aliases
std::vector<absl::string_view> ModelConfigNames();           // of an entry of `models`

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CONFIG_FIELDS_H_
