#include "coordinator/config.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "base/yaml_reader.h"
#include "coordinator/api_keys.h"
#include "coordinator/config_fields.h"

namespace dovetail::coordinator {
namespace {

void ReadFile(const YamlNode& root, ConfigDraft* draft, Mistakes* mistakes) {
  if (root.kind == YamlKind::kNull) return;  // an empty file
  if (!CheckMap(root, "the configuration", ConfigNames(), mistakes)) return;
  std::map<absl::string_view, const YamlEntry*> seen;  // by field, so that aliases count
  for (const YamlEntry& entry : root.entries) {
    const ConfigField* field = FindConfigField(entry.key);
    if (field == nullptr) continue;  // reported by CheckMap
    auto [first, is_new] = seen.emplace(field->name, &entry);
    if (!is_new) {
      if (first->second->key != entry.key) {  // else reported by CheckMap
        mistakes->Add(entry.line, entry.col,
                      absl::StrCat("`", entry.key, "` and `", first->second->key,
                                   "` are the same setting; give one of them"));
      }
      continue;
    }
    draft->where[std::string(field->name)] = mistakes->Where(entry.value);
    field->read(entry.value, entry.key, draft, mistakes);
  }
}

void ReadFlag(const ConfigOverride& flag, ConfigDraft* draft, Mistakes* all) {
  Mistakes mistakes(absl::StrCat("--", flag.name));
  const std::string name = absl::StrReplaceAll(flag.name, {{"-", "_"}});
  if (const ConfigField* field = FindConfigField(name)) {
    draft->where[std::string(field->name)] = absl::StrCat("--", flag.name);
    field->read(MakeScalar(flag.value), name, draft, &mistakes);
  } else {
    const absl::string_view nearest = NearestName(name, ConfigNames());
    mistakes.Add(0, 0,
                 nearest.empty() ? "unknown flag"
                                 : absl::StrCat("unknown flag; did you mean --",
                                                absl::StrReplaceAll(nearest, {{"_", "-"}}), "?"));
  }
  all->Append(mistakes);
}

// Mistakes that need more than one field.
void CheckTogether(const std::string& source, bool needs_model, ConfigDraft* draft, Mistakes* all) {
  ServeConfig& config = draft->config;
  const auto complain = [&](const std::string& field, absl::string_view message) {
    auto it = draft->where.find(field);
    Mistakes mistake(it != draft->where.end() ? it->second : source);
    mistake.Add(0, 0, message);
    all->Append(mistake);
  };
  if (config.tls_certificate.empty() != config.tls_key.empty()) {
    complain(config.tls_key.empty() ? "tls_certificate" : "tls_key",
             "`tls_certificate` and `tls_key` are needed together");
  }
  if (needs_model && config.model.empty() && draft->where.count("model") == 0) {
    complain("model",
             "`model` is missing: give a GGUF file with --model or `model:` in the configuration");
  }
  if (!config.rules.empty() && !config.override_tensor.empty()) {
    complain("override_tensor", "`override_tensor` stands in place of `rules`; give one of them");
  }
  if (config.port != 0 && config.port == config.grpc_port) {
    complain("grpc_port", absl::StrCat("`port` and `grpc_port` are both ", config.port));
  }
  if (config.port == 65535 && config.grpc_port == 0) {
    complain("port", "`grpc_port` is `port` + 1, which is beyond 65535; set it");
  }
  if (config.kv_tokens > 0 && config.kv_tokens < config.context_length) {
    complain("kv_tokens",
             absl::StrCat("`kv_tokens` (", config.kv_tokens, ") is less than `context_length` (",
                          config.context_length, "): no sequence could use its context"));
  }
  if (draft->total_threads > 0 && config.threads > 0) {
    complain("cpu_infer",
             "`cpu_infer` (threads of all workers) and `threads` (of each worker) "
             "exclude each other");
  }
  for (const auto& [worker, bytes] : config.memory) {
    if (std::count(config.workers.begin(), config.workers.end(), worker) > 0) continue;
    complain("memory", absl::StrCat("`memory` names ", worker, ", which is not among the workers: ",
                                    absl::StrJoin(config.workers, ", ")));
  }
  if (draft->total_threads > 0 &&
      static_cast<size_t>(draft->total_threads) < config.workers.size()) {
    complain("cpu_infer", absl::StrCat("`cpu_infer` is ", draft->total_threads, ", fewer than the ",
                                       config.workers.size(), " workers that share it"));
  }
  if (draft->total_threads > 0 && !config.workers.empty()) {
    config.threads = std::max(1, draft->total_threads / static_cast<int>(config.workers.size()));
    config.own_cores = true;
  }
}

absl::StatusOr<std::string> ReadWhole(const std::string& path, absl::string_view what) {
  std::ifstream in(path, std::ios::binary);
  if (!in.good() || (in.peek(), in.bad())) {
    return absl::NotFoundError(absl::StrCat(path, ": the ", what, " cannot be read"));
  }
  in.clear();
  std::string text((1 << 20) + 1, '\0');  // one byte more than ReadYaml takes: it says so
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

absl::Status ReadKeysFile(const std::string& path, std::map<std::string, std::string>* keys,
                          Mistakes* all) {
  DT_ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, "file of API keys"));
  const absl::StatusOr<YamlNode> root = ReadYaml(text, path);
  // Not the parser's message, which may repeat a key.
  if (!root.ok() || root->kind != YamlKind::kMap) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": must be a map of `name: key`"));
  }
  Mistakes mistakes(path);
  for (const YamlEntry& entry : root->entries) {
    const absl::Status status = AddApiKey(entry.key, entry.value.scalar, keys);
    if (!status.ok()) mistakes.Add(entry.value, status.message());
  }
  if (root->entries.empty()) mistakes.Add(0, 0, "there is no key in it");
  all->Append(mistakes);
  return absl::OkStatus();
}

// The files that the configuration names and that are read now, so that a mistake is found before
// anything starts.
absl::Status ReadNamedFiles(ServeConfig* config, Mistakes* mistakes) {
  if (!config->api_keys_file.empty()) {
    DT_RETURN_IF_ERROR(ReadKeysFile(config->api_keys_file, &config->api_keys, mistakes));
  }
  if (!config->tls_certificate.empty() && !config->tls_key.empty()) {
    DT_ASSIGN_OR_RETURN(config->tls, LoadTlsIdentity(config->tls_certificate, config->tls_key));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServeConfig> LoadConfig(const std::string& path,
                                       const std::vector<ConfigOverride>& overrides,
                                       bool needs_model) {
  ConfigDraft draft;
  Mistakes mistakes(path);
  if (!path.empty()) {
    DT_ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, "configuration file"));
    DT_ASSIGN_OR_RETURN(const YamlNode root, ReadYaml(text, path));
    ReadFile(root, &draft, &mistakes);
  }
  for (const ConfigOverride& flag : overrides) ReadFlag(flag, &draft, &mistakes);
  CheckTogether(path.empty() ? "configuration" : path, needs_model, &draft, &mistakes);
  if (mistakes.empty()) DT_RETURN_IF_ERROR(ReadNamedFiles(&draft.config, &mistakes));
  if (!mistakes.empty()) return mistakes.ToStatus();
  return draft.config;
}

}  // namespace dovetail::coordinator
