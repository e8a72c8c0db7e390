#include "coordinator/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/cluster_key.h"
#include "base/cpu_topology.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "base/yaml_reader.h"
#include "coordinator/api_keys.h"
#include "coordinator/config_fields.h"

namespace dovetail::coordinator {
namespace {

using Names = std::vector<absl::string_view>;

constexpr char kModels[] = "models";

// The keys of one map, each given once, under its name or its alias.
void ReadKeys(const YamlNode& map, const Names& known, ConfigDraft* draft, Mistakes* mistakes) {
  std::map<absl::string_view, const YamlEntry*> seen;  // by field, so that aliases count
  for (const YamlEntry& entry : map.entries) {
    const ConfigField* field = FindConfigField(entry.key);
    const bool is_known = std::find(known.begin(), known.end(), entry.key) != known.end();
    if (field == nullptr || !is_known) continue;  // reported by CheckMap
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

// All but the list of models, which begin with what the rest of the file says.
void ReadFile(const YamlNode& root, ConfigDraft* draft, Mistakes* mistakes) {
  if (root.kind == YamlKind::kNull) return;  // an empty file
  const Names names = ConfigNames();
  Names known = names;
  known.push_back(kModels);
  if (CheckMap(root, "the configuration", known, mistakes)) {
    ReadKeys(root, names, draft, mistakes);
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

// Adds a mistake about `field` where that was set, or else to `source`.
void Complain(const ConfigDraft& draft, const std::string& field, const std::string& source,
              absl::string_view message, Mistakes* all) {
  auto it = draft.where.find(field);
  Mistakes mistake(it != draft.where.end() ? it->second : source);
  mistake.Add(0, 0, message);
  all->Append(mistake);
}

// Mistakes that need more than one field of a model. `source` is where the model stands.
void CheckModel(const std::string& source, bool needs_model, ConfigDraft* draft, Mistakes* all) {
  ServeConfig& config = draft->config;
  const auto complain = [&](const std::string& field, absl::string_view message) {
    Complain(*draft, field, source, message, all);
  };
  if (needs_model && config.model.empty() && draft->where.count("model") == 0) {
    complain("model",
             "`model` is missing: give a GGUF file with --model or `model:` in the configuration");
  }
  if (!config.rules.empty() && !config.override_tensor.empty()) {
    complain("override_tensor", "`override_tensor` stands in place of `rules`; give one of them");
  }
  if (config.kv_tokens > 0 && config.kv_tokens < config.context_length) {
    complain("kv_tokens",
             absl::StrCat("`kv_tokens` (", config.kv_tokens, ") is less than `context_length` (",
                          config.context_length, "): no sequence could use its context"));
  }
  for (const auto& [worker, bytes] : config.memory) {
    if (std::count(config.workers.begin(), config.workers.end(), worker) > 0) continue;
    complain("memory", absl::StrCat("`memory` names ", worker, ", which is not among the workers: ",
                                    absl::StrJoin(config.workers, ", ")));
  }
}

void CheckTotalThreads(ConfigDraft* draft, Mistakes* all) {
  ServeConfig& config = draft->config;
  const int threads = draft->total_threads;
  if (threads == 0) return;
  if (config.threads > 0) {
    Complain(*draft, "cpu_infer", "",
             "`cpu_infer` (threads of all workers) and `threads` (of each worker) "
             "exclude each other",
             all);
  }
  const size_t workers = config.LocalWorkers().size();
  if (static_cast<size_t>(threads) < workers) {
    Complain(*draft, "cpu_infer", "",
             absl::StrCat("`cpu_infer` is ", threads, ", fewer than the ", workers,
                          " workers that share it"),
             all);
  }
  if (workers == 0) return;
  config.threads = std::max(1, threads / static_cast<int>(workers));
  config.own_cores = true;
}

void CheckServer(const std::string& source, const ConfigDraft& draft, Mistakes* all) {
  const ServeConfig& config = draft.config;
  if (config.tls_certificate.empty() != config.tls_key.empty()) {
    Complain(draft, config.tls_key.empty() ? "tls_certificate" : "tls_key", source,
             "`tls_certificate` and `tls_key` are needed together", all);
  }
  if (config.port != 0 && config.port == config.grpc_port) {
    Complain(draft, "grpc_port", source,
             absl::StrCat("`port` and `grpc_port` are both ", config.port), all);
  }
  if (config.port == 65535 && config.grpc_port == 0) {
    Complain(draft, "port", source, "`grpc_port` is `port` + 1, which is beyond 65535; set it",
             all);
  }
}

// What is of one model, in the file or as a flag, has no meaning beside a list of them.
void CheckBesideModels(const ConfigDraft& draft, const std::vector<ConfigOverride>& flags,
                       const std::string& path, Mistakes* all) {
  for (const ConfigOverride& flag : flags) {
    const ConfigField* field = FindConfigField(absl::StrReplaceAll(flag.name, {{"-", "_"}}));
    if (field == nullptr || field->scope == ConfigScope::kServer) continue;
    Mistakes mistake(absl::StrCat("--", flag.name));
    mistake.Add(0, 0, absl::StrCat("is of one model: set it in `models` of ", path));
    all->Append(mistake);
  }
  for (const ConfigField& field : ConfigFields()) {
    const bool has_place =
        field.scope == ConfigScope::kServer || field.scope == ConfigScope::kModel;
    const auto where = draft.where.find(std::string(field.name));
    if (has_place || where == draft.where.end() || where->second.front() == '-') continue;
    Complain(draft, where->first, "",
             field.scope == ConfigScope::kOneModel
                 ? absl::StrCat("`", field.name, "` is of one model: set it in `models`")
                 : absl::StrCat("`", field.name, "` cannot stand beside `models`"),
             all);
  }
}

// Names and aliases together, so that a request's `model` means one of them.
void CheckNames(const std::vector<ConfigDraft>& drafts, const Names& sources, Mistakes* all) {
  std::map<std::string, size_t> owners;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const ModelSettings& model = drafts[i].config;
    std::vector<std::string> names = model.model_aliases;
    if (!model.model.empty()) names.insert(names.begin(), ModelNameOf(model));
    for (const std::string& name : names) {
      const auto [owner, is_new] = owners.emplace(name, i);
      if (is_new) continue;
      const bool is_alias =
          std::count(model.model_aliases.begin(), model.model_aliases.end(), name) > 0;
      Complain(drafts[i], is_alias ? "model_aliases" : "model_name", std::string(sources[i]),
               absl::StrCat("the name `", name, "` is already that of the model at ",
                            sources[owner->second]),
               all);
    }
  }
}

// Models share a machine by their budgets.
void CheckBudgets(const ConfigDraft& draft, const std::string& source, Mistakes* all) {
  for (const std::string& worker : draft.config.workers) {
    if (draft.config.memory.count(worker) > 0) continue;
    Complain(draft, "memory", source,
             absl::StrCat("`memory` of ", worker,
                          " is missing: where there are several models, each of their workers "
                          "needs a budget"),
             all);
  }
}

// Cores are shared out over the workers of all models that were not given any.
void ShareCores(std::vector<ModelSettings>* models) {
  size_t workers = 0;
  for (const ModelSettings& model : *models) workers += model.LocalWorkers().size();
  const size_t cores = UsableCpus(ReadCpuTopology(), -1).size();
  for (ModelSettings& model : *models) {
    if (model.threads > 0) continue;
    model.threads = std::max<int>(1, static_cast<int>(cores / std::max<size_t>(1, workers)));
  }
}

// The entries of `models`; each begins with what the draft of the file says.
void ReadModels(const YamlNode& list, ConfigDraft* draft, Mistakes* mistakes, Mistakes* all) {
  if (list.kind != YamlKind::kList || list.items.empty()) {
    mistakes->Add(list,
                  absl::StrCat("`models` must be a list of models, got ",
                               list.kind == YamlKind::kList ? "an empty list" : Quoted(list)));
    return;
  }
  const Names known = ModelConfigNames();
  // What is of one model has been complained about if it stood beside the list.
  ConfigDraft beginning = *draft;
  beginning.config.model.clear();
  for (const ConfigField& field : ConfigFields()) {
    if (field.scope == ConfigScope::kOneModel) beginning.where.erase(std::string(field.name));
  }
  std::vector<ConfigDraft> drafts;
  std::vector<std::string> sources;
  for (const YamlNode& item : list.items) {
    if (!CheckMap(item, "a model of `models`", known, mistakes)) continue;
    ConfigDraft& entry = drafts.emplace_back(beginning);
    sources.push_back(mistakes->Where(item));
    ReadKeys(item, known, &entry, mistakes);
    CheckModel(sources.back(), /*needs_model=*/true, &entry, all);
    if (list.items.size() > 1) CheckBudgets(entry, sources.back(), all);
    draft->config.models.push_back(entry.config);
  }
  CheckNames(drafts, Names(sources.begin(), sources.end()), all);
  ShareCores(&draft->config.models);
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
  if (!config->cluster_key_file.empty()) {
    absl::StatusOr<std::string> key = ReadClusterKey(config->cluster_key_file);
    if (!key.ok()) return Annotate(key.status(), "`cluster_key_file`");
    config->cluster_key = *std::move(key);
  }
  if (!config->tls_certificate.empty() && !config->tls_key.empty()) {
    DT_ASSIGN_OR_RETURN(config->tls, LoadTlsIdentity(config->tls_certificate, config->tls_key));
  }
  return absl::OkStatus();
}

// Nobody may join from another host who has not the cluster's key.
void CheckClusterKey(const ConfigDraft& draft, const std::string& source, Mistakes* mistakes) {
  if (!draft.config.cluster_key_file.empty()) return;
  for (const ModelSettings& model : draft.config.Models()) {
    for (const std::string& worker : model.workers) {
      if (HostOf(worker).empty()) continue;
      Complain(draft, "workers", source,
               absl::StrCat("`workers`: ", worker, " is of another host, and the worker there ",
                            "needs a key: give `cluster_key_file`"),
               mistakes);
      return;
    }
  }
}

// All keys are known, those of the keys' file too.
void CheckKeyPriority(const ConfigDraft& draft, const std::string& source, Mistakes* mistakes) {
  for (const ModelSettings& model : draft.config.Models()) {
    for (const auto& [name, priority] : model.key_priority) {
      if (draft.config.api_keys.count(name) > 0) continue;
      Complain(draft, "key_priority", source,
               absl::StrCat("`key_priority`: there is no API key of ", name), mistakes);
    }
  }
}

}  // namespace

std::string ModelNameOf(const ModelSettings& settings) {
  if (!settings.model_name.empty()) return settings.model_name;
  std::error_code error;
  std::filesystem::path file = std::filesystem::absolute(settings.model, error).lexically_normal();
  if (!file.has_filename()) file = file.parent_path();
  const std::string name =
      file.extension() == ".gguf" ? file.stem().string() : file.filename().string();
  return name.empty() ? "model" : name;
}

std::vector<std::string> ModelSettings::LocalWorkers() const {
  std::vector<std::string> local;
  for (const std::string& worker : workers) {
    if (HostOf(worker).empty()) local.push_back(worker);
  }
  return local;
}

std::vector<ModelSettings> ServeConfig::Models() const {
  return models.empty() ? std::vector<ModelSettings>{*this} : models;
}

absl::StatusOr<ServeConfig> LoadConfig(const std::string& path,
                                       const std::vector<ConfigOverride>& overrides,
                                       bool needs_model) {
  ConfigDraft draft;
  Mistakes mistakes(path);  // of the file's lines
  Mistakes others(path);
  YamlNode root;
  if (!path.empty()) {
    DT_ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, "configuration file"));
    DT_ASSIGN_OR_RETURN(root, ReadYaml(text, path));
    ReadFile(root, &draft, &mistakes);
  }
  for (const ConfigOverride& flag : overrides) ReadFlag(flag, &draft, &others);
  const std::string source = path.empty() ? "configuration" : path;
  CheckServer(source, draft, &others);
  if (const YamlNode* models = root.Find(kModels)) {
    CheckBesideModels(draft, overrides, path, &others);
    ReadModels(*models, &draft, &mistakes, &others);
  } else {
    CheckModel(source, needs_model, &draft, &others);
    CheckTotalThreads(&draft, &others);
  }
  mistakes.Append(others);
  if (mistakes.empty()) DT_RETURN_IF_ERROR(ReadNamedFiles(&draft.config, &mistakes));
  if (mistakes.empty()) CheckKeyPriority(draft, source, &mistakes);
  if (mistakes.empty()) CheckClusterKey(draft, source, &mistakes);
  if (!mistakes.empty()) return mistakes.ToStatus();
  return draft.config;
}

}  // namespace dovetail::coordinator
