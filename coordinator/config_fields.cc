#include "coordinator/config_fields.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/cpu_topology.h"
#include "base/route.h"
#include "coordinator/api_keys.h"
#include "coordinator/chat/chat_dialect.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/override_tensor.h"

namespace dovetail::coordinator {
namespace {

constexpr int kMaxKeyPriority = 100;  // and -100, as of a request

using Reader = decltype(ConfigField::read);

template <typename Owner>
Reader Text(std::string Owner::*field) {
  return [field](const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
    if (auto text = ReadText(node, name, mistakes)) draft->config.*field = *text;
  };
}

template <typename Owner>
Reader Int(int Owner::*field, int lowest, int highest) {
  return [=](const YamlNode& node, absl::string_view name, ConfigDraft* draft, Mistakes* mistakes) {
    if (auto value = ReadInt(node, name, lowest, highest, mistakes)) {
      draft->config.*field = static_cast<int>(*value);
    }
  };
}

Reader Bool(bool ServeConfig::*field) {
  return [field](const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
    if (auto value = ReadBool(node, name, mistakes)) draft->config.*field = *value;
  };
}

// "30s", "1500ms", "10m"; a number alone is seconds.
template <typename Owner>
Reader Duration(absl::Duration Owner::*field) {
  return [field](const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
    absl::Duration duration;
    double seconds = 0;
    const bool is_scalar = node.kind == YamlKind::kScalar;
    if (is_scalar && absl::SimpleAtod(node.scalar, &seconds)) {
      duration = absl::Seconds(seconds);
    } else if (!is_scalar || !absl::ParseDuration(node.scalar, &duration)) {
      duration = absl::ZeroDuration();
    }
    if (duration > absl::ZeroDuration() && duration <= absl::Hours(24 * 365)) {
      draft->config.*field = duration;
    } else {
      mistakes->Add(node,
                    absl::StrCat("`", name, "` must be a time such as 30s, 1500ms or 10m, got ",
                                 Quoted(node)));
    }
  };
}

// A list, or one text with commas.
std::vector<YamlNode> Items(const YamlNode& node) {
  if (node.kind != YamlKind::kScalar) return node.items;
  std::vector<YamlNode> items;
  for (absl::string_view part : absl::StrSplit(node.scalar, ',')) {
    YamlNode item = MakeScalar(absl::StripAsciiWhitespace(part));
    item.line = node.line;
    item.col = node.col;
    items.push_back(std::move(item));
  }
  return items;
}

// Empty when the name is good, else what is wrong with it.
std::string WorkerNameProblem(absl::string_view name) {
  constexpr int kMostWorkers = 1024;
  constexpr size_t kLongestHost = 40;
  const size_t colon = name.find(':');
  const absl::string_view kind = name.substr(0, colon);
  const bool known = kind == "cpu" || kind == "cuda" || kind == "simt";
  int number = 0;
  if (known && colon != absl::string_view::npos && name.size() > colon + 1 &&
      absl::ascii_isdigit(name[colon + 1]) && absl::SimpleAtoi(name.substr(colon + 1), &number) &&
      number < kMostWorkers && name == absl::StrCat(kind, ":", number)) {
    return "";
  }
  const absl::string_view host = HostOf(name);
  if (!host.empty() && WorkerNameProblem(DeviceOf(name)).empty()) {
    if (host.size() > kLongestHost) {
      return absl::StrCat("`", name, "`: the name of a host has at most ", kLongestHost,
                          " characters");
    }
    if (IsDevicePattern(name)) return "";
  }
  return absl::StrCat("`", name,
                      "` is not a worker's name; expected cpu:N or cuda:N, as in cpu:0, ",
                      "or of another host host-b/cpu:0");
}

void ReadWorkers(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
  const std::vector<YamlNode> items = Items(node);
  if (node.kind == YamlKind::kMap || items.empty()) {
    mistakes->Add(node,
                  absl::StrCat("`", name, "` must be a list of workers, as in [cpu:0, cpu:1], got ",
                               node.kind == YamlKind::kList ? "an empty list" : Quoted(node)));
    return;
  }
  std::vector<std::string> workers;
  for (const YamlNode& item : items) {
    std::string problem = item.kind == YamlKind::kScalar
                              ? WorkerNameProblem(item.scalar)
                              : absl::StrCat("expected a worker's name, got ", Quoted(item));
    if (problem.empty() && std::count(workers.begin(), workers.end(), item.scalar) > 0) {
      problem = absl::StrCat("`", item.scalar, "` is named twice");
    }
    if (!problem.empty()) {
      mistakes->Add(item, absl::StrCat("`", name, "`: ", problem));
      continue;
    }
    workers.push_back(item.scalar);
  }
  draft->config.workers = std::move(workers);
}

void ReadBudget(const YamlNode& at, const std::string& worker, const std::string& text,
                ConfigDraft* draft, Mistakes* mistakes) {
  absl::StatusOr<int64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) {
    mistakes->Add(at, absl::StrCat("`memory` of ", worker, ": ", bytes.status().message()));
  } else if (!draft->config.memory.emplace(worker, *bytes).second) {
    mistakes->Add(at, absl::StrCat("`memory` of ", worker, " is given twice"));
  }
}

// What each worker has: a map {cpu:0: 8GiB}, or the text cpu:0=8GiB,cpu:1=4GiB. `what` is for
// messages: "size, as in cpu:0=8GiB".
using ReadOfWorker = void (*)(const YamlNode& at, const std::string& worker,
                              const std::string& text, ConfigDraft* draft, Mistakes* mistakes);
void ReadByWorker(const YamlNode& node, absl::string_view name, absl::string_view what,
                  ReadOfWorker read, ConfigDraft* draft, Mistakes* mistakes) {
  if (node.kind == YamlKind::kMap) {
    for (const YamlEntry& entry : node.entries) {
      read(entry.value, entry.key, entry.value.scalar, draft, mistakes);
    }
    return;
  }
  for (const YamlNode& item : Items(node)) {
    const std::vector<std::string> parts = absl::StrSplit(item.scalar, absl::MaxSplits('=', 1));
    if (item.kind == YamlKind::kScalar && parts.size() == 2) {
      read(item, parts[0], parts[1], draft, mistakes);
    } else {
      mistakes->Add(item,
                    absl::StrCat("`", name, "` must be worker and ", what, ", got ", Quoted(item)));
    }
  }
}

void ReadMemory(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                Mistakes* mistakes) {
  draft->config.memory.clear();
  ReadByWorker(node, name, "size, as in cpu:0=8GiB", ReadBudget, draft, mistakes);
}

// A list ["cuda:1=cuda:0"], or the text cuda:1=cuda:0,cuda:*=cpu:0. What is read later comes first.
void ReadMap(const YamlNode& node, absl::string_view name, ConfigDraft* draft, Mistakes* mistakes) {
  std::vector<std::string> entries;
  for (const YamlNode& item : Items(node)) {
    const absl::StatusOr<DeviceMap> parsed = DeviceMap::Parse({item.scalar});
    if (!parsed.ok()) {
      mistakes->Add(item, absl::StrCat("`", name,
                                       "` must be a list of FROM=TO, such as "
                                       "cuda:1=cuda:0 or cuda:*=cpu:0, got ",
                                       Quoted(item)));
      continue;
    }
    entries.push_back(item.scalar);
  }
  std::vector<std::string>& map = draft->config.map;
  map.insert(map.begin(), entries.begin(), entries.end());
}

// Patterns may hold commas: a text is one argument, and each repeated flag another.
void ReadOverrides(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                   Mistakes* mistakes) {
  const std::vector<YamlNode> items =
      node.kind == YamlKind::kList ? node.items : std::vector<YamlNode>{node};
  for (const YamlNode& item : items) {
    const std::vector<std::string> argument = {item.scalar};
    for (const Diagnostic& d : ParseTensorOverrides(argument).diagnostics) {
      if (d.severity == Severity::kError) {
        mistakes->Add(item, absl::StrCat("`", name, "`: ", d.message));
      }
    }
    draft->config.override_tensor.push_back(item.scalar);
  }
}

// Calls add(node, name, value) for each of a map {alice: VALUE}, or of the text
// alice=VALUE,bob=VALUE; wrong(node) for what is neither.
template <typename Add, typename Wrong>
void ForNamedValues(const YamlNode& node, const Add& add, const Wrong& wrong) {
  if (node.kind == YamlKind::kMap) {
    for (const YamlEntry& entry : node.entries) add(entry.value, entry.key, entry.value.scalar);
    return;
  }
  for (const YamlNode& item : Items(node)) {
    const std::vector<std::string> parts = absl::StrSplit(item.scalar, absl::MaxSplits('=', 1));
    if (item.kind == YamlKind::kScalar && parts.size() == 2) {
      add(item, parts[0], parts[1]);
    } else {
      wrong(item);
    }
  }
}

// Keys are never repeated in a message.
void ReadApiKeys(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
  const auto add = [&](const YamlNode& at, const std::string& who, const std::string& key) {
    const absl::Status status = AddApiKey(who, key, &draft->config.api_keys);
    if (!status.ok()) mistakes->Add(at, absl::StrCat("`", name, "`: ", status.message()));
  };
  ForNamedValues(node, add, [&](const YamlNode& item) {
    mistakes->Add(item, absl::StrCat("`", name, "` must be name and key, as in alice=KEY"));
  });
}

// Whether there are such keys is seen when all were read.
void ReadKeyPriority(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                     Mistakes* mistakes) {
  std::map<std::string, int>& priorities = draft->config.key_priority;
  priorities.clear();
  const auto add = [&](const YamlNode& at, const std::string& who, const std::string& text) {
    int priority = 0;
    if (!absl::SimpleAtoi(text, &priority) || std::abs(priority) > kMaxKeyPriority) {
      mistakes->Add(
          at, absl::StrCat("`", name, "` of ", who, " must be a number from -", kMaxKeyPriority,
                           " to ", kMaxKeyPriority, ", got `", text, "`"));
    } else if (!priorities.emplace(who, priority).second) {
      mistakes->Add(at, absl::StrCat("`", name, "` of ", who, " is given twice"));
    }
  };
  ForNamedValues(node, add, [&](const YamlNode& item) {
    mistakes->Add(
        item, absl::StrCat("`", name, "` must be a key's name and a number, as in alice=-10, got ",
                           Quoted(item)));
  });
}

// A list, or the text a,b.
void ReadAliases(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
  std::vector<std::string> aliases;
  for (const YamlNode& item : Items(node)) {
    if (item.kind == YamlKind::kScalar && !item.scalar.empty()) {
      aliases.push_back(item.scalar);
    } else {
      mistakes->Add(item, absl::StrCat("`", name, "` must be a list of names, got ", Quoted(item)));
    }
  }
  draft->config.model_aliases = std::move(aliases);
}

void ReadKvType(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar && FindKvType(node.scalar, &draft->config.kv_type)) return;
  mistakes->Add(node,
                absl::StrCat("`", name, "` must be one of ", kKvTypeNames, ", got ", Quoted(node)));
}

void ReadWeightMemory(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                      Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  if (text == "auto" || text == "shared" || text == "private") {
    draft->config.weight_memory = text;
    return;
  }
  mistakes->Add(
      node, absl::StrCat("`", name, "` must be one of auto, shared, private, got ", Quoted(node)));
}

void ReadWeights(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                 Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  if (text == "packed" || text == "in_place") {
    draft->config.weights = text;
    return;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be packed or in_place, got ", Quoted(node)));
}

void ReadStreamExperts(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                       Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  int rows = 0;
  if (text == "off") {
    draft->config.stream_rows = 0;
  } else if (text == "auto") {
    draft->config.stream_rows = -1;
  } else if (absl::SimpleAtoi(text, &rows) && rows >= 1 && rows <= 65536) {
    draft->config.stream_rows = rows;
  } else {
    mistakes->Add(node, absl::StrCat("`", name,
                                     "` must be off, auto or a number of tokens from 1 to "
                                     "65536, got ",
                                     Quoted(node)));
  }
}

void ReadStreamBuffer(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                      Mistakes* mistakes) {
  const absl::StatusOr<int64_t> bytes =
      ParseBytes(node.kind == YamlKind::kScalar ? node.scalar : "");
  if (bytes.ok() && *bytes >= 1 << 12 && *bytes <= int64_t{1} << 40) {
    draft->config.stream_buffer = *bytes / 64 * 64;
    return;
  }
  mistakes->Add(node,
                absl::StrCat("`", name, "` must be a size from 4KiB to 1TiB, got ", Quoted(node)));
}

// The number that `field` gives a worker of a kind ("cuda:"); what it is the number of.
void ReadNumberOf(absl::string_view field, absl::string_view kind, absl::string_view what,
                  const YamlNode& at, const std::string& worker, const std::string& text,
                  std::map<std::string, int>* numbers, Mistakes* mistakes) {
  int number = 0;
  if (!absl::StartsWith(worker, kind)) {
    mistakes->Add(at, absl::StrCat("`", field, "` names ", worker,
                                   ", which is no worker of the kind ", kind, "N"));
  } else if (!absl::SimpleAtoi(text, &number) || number < 0 || number > 9999) {
    mistakes->Add(at, absl::StrCat("`", field, "` of ", worker, " must be a ", what,
                                   "'s number, got `", text, "`"));
  } else if (!numbers->emplace(worker, number).second) {
    mistakes->Add(at, absl::StrCat("`", field, "` of ", worker, " is given twice"));
  }
}

void ReadGpu(const YamlNode& at, const std::string& worker, const std::string& text,
             ConfigDraft* draft, Mistakes* mistakes) {
  ReadNumberOf("gpus", "cuda:", "GPU", at, worker, text, &draft->config.gpus, mistakes);
}

void ReadGpus(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
              Mistakes* mistakes) {
  draft->config.gpus.clear();
  ReadByWorker(node, name, "number, as in cuda:1=0", ReadGpu, draft, mistakes);
}

void ReadNode(const YamlNode& at, const std::string& worker, const std::string& text,
              ConfigDraft* draft, Mistakes* mistakes) {
  ReadNumberOf("numa", "cpu:", "node", at, worker, text, &draft->config.numa, mistakes);
}

void ReadNuma(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
              Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  draft->config.numa.clear();
  draft->config.numa_auto = text == "auto";
  if (text == "auto" || text == "none") return;
  ReadByWorker(node, name, "node, as in cpu:0=0, or auto or none", ReadNode, draft, mistakes);
}

void ReadGpuLinks(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                  Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  if (FindGpuLinks(text, &draft->config.gpu_links)) return;
  mistakes->Add(node, absl::StrCat("`", name, "` must be one of ",
                                   absl::StrJoin(kGpuLinksNames, ", "), ", got ", Quoted(node)));
}

void ReadPreemption(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                    Mistakes* mistakes) {
  const std::string text = node.kind == YamlKind::kScalar ? node.scalar : "";
  if (text == "auto") {
    draft->config.preemption = Preemption::kCheaper;
  } else if (text == "swap") {
    draft->config.preemption = Preemption::kSwap;
  } else if (text == "recompute") {
    draft->config.preemption = Preemption::kRecompute;
  } else {
    mistakes->Add(node,
                  absl::StrCat("`", name, "` must be auto, swap or recompute, got ", Quoted(node)));
  }
}

void ReadLanes(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
               Mistakes* mistakes) {
  constexpr int kMostLanes = 64;
  if (node.kind == YamlKind::kScalar && node.scalar == "auto") {
    draft->config.lanes = 0;
  } else if (auto value = ReadInt(node, name, 1, kMostLanes, mistakes)) {
    draft->config.lanes = static_cast<int>(*value);
  }
}

void ReadListen(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                Mistakes* mistakes) {
  unsigned char address[sizeof(in6_addr)];
  const std::string& text = node.scalar;
  if (node.kind == YamlKind::kScalar &&
      (text == "localhost" || inet_pton(AF_INET, text.c_str(), address) == 1 ||
       inet_pton(AF_INET6, text.c_str(), address) == 1)) {
    draft->config.listen = text == "localhost" ? "127.0.0.1" : text;
    return;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be an IP address such as 127.0.0.1, got ",
                                   Quoted(node)));
}

void ReadLogLevel(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                  Mistakes* mistakes) {
  constexpr absl::string_view kLevels[] = {"debug", "info", "warn", "error", "off"};
  const auto* end = std::end(kLevels);
  if (node.kind == YamlKind::kScalar && std::find(std::begin(kLevels), end, node.scalar) != end) {
    draft->config.log_level = node.scalar;
    return;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be one of ", absl::StrJoin(kLevels, ", "),
                                   ", got ", Quoted(node)));
}

void ReadToolParser(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                    Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar &&
      (node.scalar == "auto" || node.scalar == "none" || FindDialect(node.scalar) != nullptr)) {
    draft->config.tool_parser = node.scalar;
    return;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be one of auto, none, ", DialectNames(),
                                   ", got ", Quoted(node)));
}

void ReadReasoningParser(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                         Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar &&
      (node.scalar == "auto" || node.scalar == "none" || node.scalar == "think")) {
    draft->config.reasoning_parser = node.scalar;
    return;
  }
  mistakes->Add(node,
                absl::StrCat("`", name, "` must be one of auto, none, think, got ", Quoted(node)));
}

void ReadTotalThreads(const YamlNode& node, absl::string_view name, ConfigDraft* draft,
                      Mistakes* mistakes) {
  const std::optional<int64_t> value = ReadInt(node, name, 1, 4096, mistakes);
  if (!value) return;
  draft->total_threads = static_cast<int>(*value);
  const size_t cores = UsableCpus(ReadCpuTopology(), -1).size();
  if (cores == 0 || static_cast<size_t>(*value) <= cores) return;
  mistakes->Add(node, absl::StrCat("`", name, "` is ", *value, ", but this machine has ", cores,
                                   cores == 1 ? " core" : " cores", " to use"));
}

// KTransformers' settings that have no meaning here: the Hugging Face directory (everything comes
// from the GGUF file) and the choice of an engine (there is one). Accepted, so that a command line
// can be kept as it is.
void ReadWithoutEffect(const YamlNode& node, absl::string_view name, ConfigDraft*,
                       Mistakes* mistakes) {
  ReadText(node, name, mistakes);
}

void AddNames(const ConfigField& field, std::vector<absl::string_view>* names) {
  names->push_back(field.name);
  if (!field.alias.empty()) names->push_back(field.alias);
}

}  // namespace

const std::vector<ConfigField>& ConfigFields() {
  constexpr int kMany = 1 << 30;
  static const auto* const fields = new std::vector<ConfigField>{
      {"model", "gguf_path", ConfigScope::kOneModel, Text(&ModelSettings::model)},
      {"model_path", "", ConfigScope::kAlone, ReadWithoutEffect},
      {"backend_type", "", ConfigScope::kAlone, ReadWithoutEffect},
      {"model_name", "", ConfigScope::kOneModel, Text(&ModelSettings::model_name)},
      {"model_aliases", "", ConfigScope::kOneModel, ReadAliases},
      {"rules", "optimize_config_path", ConfigScope::kOneModel, Text(&ModelSettings::rules)},
      {"map", "", ConfigScope::kOneModel, ReadMap},
      {"override_tensor", "", ConfigScope::kOneModel, ReadOverrides},
      {"workers", "", ConfigScope::kModel, ReadWorkers},
      {"spawn_workers", "", ConfigScope::kServer, Bool(&ServeConfig::spawn_workers)},
      {"threads", "", ConfigScope::kModel, Int(&ModelSettings::threads, 0, 1024)},
      {"cpu_infer", "", ConfigScope::kAlone, ReadTotalThreads},
      {"run_dir", "", ConfigScope::kServer, Text(&ServeConfig::run_dir)},
      {"memory", "", ConfigScope::kModel, ReadMemory},
      {"listen", "", ConfigScope::kServer, ReadListen},
      {"port", "", ConfigScope::kServer, Int(&ServeConfig::port, 0, 65535)},
      {"grpc_port", "", ConfigScope::kServer, Int(&ServeConfig::grpc_port, 0, 65535)},
      {"api_keys", "", ConfigScope::kServer, ReadApiKeys},
      {"api_keys_file", "", ConfigScope::kServer, Text(&ServeConfig::api_keys_file)},
      {"tls_certificate", "", ConfigScope::kServer, Text(&ServeConfig::tls_certificate)},
      {"tls_key", "", ConfigScope::kServer, Text(&ServeConfig::tls_key)},
      {"cluster_key_file", "", ConfigScope::kServer, Text(&ServeConfig::cluster_key_file)},
      {"max_connections", "", ConfigScope::kServer, Int(&ServeConfig::max_connections, 1, 1 << 20)},
      {"context_length", "", ConfigScope::kModel, Int(&ModelSettings::context_length, 0, kMany)},
      {"kv_tokens", "cache_lens", ConfigScope::kModel, Int(&ModelSettings::kv_tokens, 0, kMany)},
      {"kv_swap_tokens", "", ConfigScope::kModel, Int(&ModelSettings::kv_swap_tokens, 0, kMany)},
      {"kv_type", "", ConfigScope::kModel, ReadKvType},
      {"weight_memory", "", ConfigScope::kModel, ReadWeightMemory},
      {"weights", "", ConfigScope::kModel, ReadWeights},
      {"weight_cache", "", ConfigScope::kModel, Text(&ModelSettings::weight_cache)},
      {"max_batch_size", "", ConfigScope::kModel, Int(&ModelSettings::max_batch_size, 1, 1024)},
      {"chunk_size", "chunk_prefill_size", ConfigScope::kModel,
       Int(&ModelSettings::chunk_size, 1, 65536)},
      {"stream_experts", "", ConfigScope::kModel, ReadStreamExperts},
      {"stream_buffer", "", ConfigScope::kModel, ReadStreamBuffer},
      {"gpu_links", "", ConfigScope::kModel, ReadGpuLinks},
      {"gpus", "", ConfigScope::kModel, ReadGpus},
      {"numa", "", ConfigScope::kModel, ReadNuma},
      {"max_new_tokens", "", ConfigScope::kModel, Int(&ModelSettings::max_new_tokens, 0, kMany)},
      {"max_queue", "", ConfigScope::kModel, Int(&ModelSettings::max_queue, 1, 1 << 20)},
      {"max_logit_rows", "", ConfigScope::kModel, Int(&ModelSettings::max_logit_rows, 0, 1 << 20)},
      {"key_priority", "", ConfigScope::kModel, ReadKeyPriority},
      {"lanes", "", ConfigScope::kModel, ReadLanes},
      {"token_target", "", ConfigScope::kModel, Duration(&ModelSettings::token_target)},
      {"preemption", "", ConfigScope::kModel, ReadPreemption},
      {"request_timeout", "", ConfigScope::kServer, Duration(&ServeConfig::request_timeout)},
      {"worker_timeout", "", ConfigScope::kModel, Duration(&ModelSettings::worker_timeout)},
      {"recovery_timeout", "", ConfigScope::kModel, Duration(&ModelSettings::recovery_timeout)},
      {"drain_timeout", "", ConfigScope::kServer, Duration(&ServeConfig::drain_timeout)},
      {"chat_template", "", ConfigScope::kOneModel, Text(&ModelSettings::chat_template)},
      {"tool_parser", "", ConfigScope::kModel, ReadToolParser},
      {"reasoning_parser", "", ConfigScope::kModel, ReadReasoningParser},
      {"log_level", "", ConfigScope::kServer, ReadLogLevel},
  };
  return *fields;
}

std::vector<absl::string_view> ConfigNames() {
  std::vector<absl::string_view> names;
  for (const ConfigField& field : ConfigFields()) AddNames(field, &names);
  return names;
}

std::vector<absl::string_view> ModelConfigNames() {
  std::vector<absl::string_view> names;
  for (const ConfigField& field : ConfigFields()) {
    const bool of_models =
        field.scope == ConfigScope::kModel || field.scope == ConfigScope::kOneModel;
    if (of_models) AddNames(field, &names);
  }
  return names;
}

const ConfigField* FindConfigField(absl::string_view name) {
  for (const ConfigField& field : ConfigFields()) {
    if (name == field.name || (!field.alias.empty() && name == field.alias)) return &field;
  }
  return nullptr;
}

}  // namespace dovetail::coordinator
