// Operators, devices and what else the kwargs of a rule say.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/op_names.h"
#include "coordinator/placement/ktransformers/yaml11.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr absl::string_view kDeviceNames[] = {"cuda", "cpu", "cuda:0", "npu", "xpu"};

Place At(const YamlNode& node) { return {node.line, node.col}; }

// "cpu", "cuda:3", "npu:0": what a canonical device may be.
bool IsDevice(absl::string_view device) {
  if (device == "cpu") return true;
  for (absl::string_view kind : {"cuda:", "npu:", "xpu:"}) {
    absl::string_view number = device;
    int value = 0;
    if (absl::ConsumePrefix(&number, kind)) {
      return !number.empty() && number.size() <= 4 &&
             number.find_first_not_of("0123456789") == absl::string_view::npos &&
             absl::SimpleAtoi(number, &value);
    }
  }
  return false;
}

bool IsCuda(absl::string_view device) { return absl::StartsWith(device, "cuda:"); }
bool IsForeign(absl::string_view device) {
  return absl::StartsWith(device, "npu:") || absl::StartsWith(device, "xpu:");
}

class OpLint {
 public:
  OpLint(const LintContext& context, std::vector<Diagnostic>* out)
      : context_(context), out_(*out) {}

  void Run() {
    for (const Rule& rule : context_.file.rules) {
      CheckClasses(rule);
      for (const char* key : {"generate_device", "prefill_device", "out_device"}) {
        if (const YamlNode* device = rule.Kwarg(key)) CheckDevice(*device, key);
      }
      CheckOp(rule, "generate_op", "generate_device");
      CheckOp(rule, "prefill_op", "prefill_device");
      CheckPrefill(rule);
      CheckOutDevice(rule);
      if (const YamlNode* map = rule.Kwarg("transfer_map")) CheckTransferMap(*map);
    }
  }

 private:
  void Report(absl::string_view code, Severity severity, Place at, std::string message) {
    out_.push_back(
        {std::string(code), severity, context_.file.file, at.line, at.col, std::move(message)});
  }

  void CheckClasses(const Rule& rule) {
    for (const auto& [path, at] :
         {std::pair{rule.match_class, rule.match_class_place}, std::pair{rule.op, rule.op_place}}) {
      if (path.empty() || path == "default" || absl::StrContains(path, ".")) continue;
      Report("short-class", Severity::kNote, at,
             absl::StrCat("`", path,
                          "` is a class without its module, which KTransformers itself "
                          "refuses; here its last name is enough"));
    }
    const OpClass kind = ClassifyOp(rule.op);
    if (!seen_classes_.insert(rule.op).second) return;
    if (kind == OpClass::kUnknown) {
      Report("unknown-class", Severity::kWarning, rule.op_place,
             absl::StrCat("`", rule.op,
                          "` is none of KTransformers' operators; the rule only "
                          "places its modules"));
    } else if (kind == OpClass::kImplementation) {
      Report("own-implementation", Severity::kNote, rule.op_place,
             absl::StrCat("`", rule.op,
                          "` chooses an implementation in Python; Dovetail has its "
                          "own, and the rule only places its modules"));
    }
  }

  // False when it is none.
  bool CheckDevice(const YamlNode& node, absl::string_view key) {
    const std::string device = CanonicalDevice(TextOf(node).value_or(""));
    if (!IsDevice(device)) {
      const absl::string_view nearest =
          device == "gpu" ? "cuda" : NearestName(device, kDeviceNames);
      Report("unknown-device", Severity::kError, At(node),
             absl::StrCat("`", key, "` must be `cpu`, `cuda` or `cuda:N`, got ", Quoted(node),
                          nearest.empty() ? "" : absl::StrCat("; did you mean `", nearest, "`?")));
      return false;
    }
    if (IsForeign(context_.device_map.Apply(device)) && foreign_.insert(device).second) {
      Report("unsupported-device", Severity::kNote, At(node),
             absl::StrCat("there are no workers for `", device.substr(0, 3), "` devices; --map ",
                          device.substr(0, 3), ":*=cuda:0 or =cpu:0 takes ", "another"));
    }
    return true;
  }

  void CheckOp(const Rule& rule, const char* op_key, const char* device_key) {
    const YamlNode* node = rule.Kwarg(op_key);
    if (node == nullptr || node->kind == YamlKind::kNull || node->scalar == "None") return;
    const OpInfo* op = FindOp(TextOf(*node).value_or(""));
    if (op == nullptr) {
      const absl::string_view nearest = NearestName(node->scalar, OpNames());
      Report("unknown-op", Severity::kError, At(*node),
             absl::StrCat("`", op_key, "` names no operator: ", Quoted(*node), "; ",
                          nearest.empty() ? absl::StrCat("known: ", absl::StrJoin(OpNames(), ", "))
                                          : absl::StrCat("did you mean `", nearest, "`?")));
      return;
    }
    const OpClass kind = ClassifyOp(rule.op);
    if ((kind == OpClass::kLinear && op->is_experts) ||
        (kind == OpClass::kExperts && !op->is_experts)) {
      Report("op-device", Severity::kWarning, At(*node),
             absl::StrCat("`", op->name, "` computes ",
                          op->is_experts ? "experts" : "a matrix product", ", which `", rule.op,
                          "` is not"));
    }
    CheckOpOn(*op, CanonicalDevice(rule.Device(device_key)), *node,
              std::string(op_key) == "generate_op");
  }

  // An operator that its device cannot run; ours take its place with the same results.
  void CheckOpOn(const OpInfo& op, const std::string& device, const YamlNode& node, bool decode) {
    if (device.empty() || !IsDevice(device)) return;
    const bool wrong = (op.runs == OpRuns::kCpu && device != "cpu") ||
                       (op.runs == OpRuns::kCuda && !IsCuda(device));
    if (wrong) {
      Report("op-device", Severity::kWarning, At(node),
             absl::StrCat("`", op.name, "` does not run on `", device,
                          "` in KTransformers; Dovetail takes its own kernels there"));
      return;
    }
    const std::string real = context_.device_map.Apply(device);
    const DeviceInfo* info = FindGpu(real);
    if (!decode || info == nullptr || info->compute_capability == 0 ||
        info->compute_capability >= op.least_capability) {
      return;
    }
    if (!fallbacks_.insert({op.name, real}).second) return;
    Report(
        "op-fallback", Severity::kWarning, At(node),
        absl::StrCat("`", op.name, "` needs compute capability ", Capability(op.least_capability),
                     " and ", real, " has ", Capability(info->compute_capability),
                     "; Dovetail's own kernels run there instead, with the weights as the file "
                     "has them"));
  }

  static std::string Capability(int number) { return absl::StrCat(number / 10, ".", number % 10); }

  const DeviceInfo* FindGpu(absl::string_view device) const {
    absl::string_view number = device;
    int index = 0;
    if (!absl::ConsumePrefix(&number, "cuda:") || !absl::SimpleAtoi(number, &index)) return nullptr;
    for (const DeviceInfo& info : context_.devices) {
      if (info.kind == DeviceKind::kCuda && index-- == 0) return &info;
    }
    return nullptr;
  }

  void CheckPrefill(const Rule& rule) {
    const YamlNode* prefill = rule.Kwarg("prefill_device");
    if (prefill == nullptr) return;
    const std::string to = CanonicalDevice(rule.Device("prefill_device"));
    const std::string from = CanonicalDevice(rule.Device("generate_device"));
    if (to == from || !IsDevice(to) || !IsDevice(from)) return;
    Report("prefill-device", Severity::kNote, At(*prefill),
           from == "cpu" && IsCuda(to)
               ? absl::StrCat(
                     "prefill of steps that `stream_experts` chooses streams these weights to ", to,
                     "; without it prefill runs on cpu as decode does")
               : absl::StrCat("prefill runs on ", from, " as decode does, not on ", to));
  }

  // Where a CPU op leaves its result is what reads it next: the attention of its layer's device.
  void CheckOutDevice(const Rule& rule) {
    const YamlNode* node = rule.Kwarg("out_device");
    if (node == nullptr) return;
    const std::string out = CanonicalDevice(rule.Device("out_device"));
    std::set<std::string> readers;
    for (const MapEntry& entry : context_.map.entries) {
      if (entry.rule != rule.index || LayerOf(entry.name) < 0) continue;
      const std::string reader = AttentionDevice(LayerOf(entry.name));
      if (!reader.empty() && reader != out) readers.insert(reader);
    }
    if (readers.empty()) return;
    Report("out-device", Severity::kNote, At(*node),
           absl::StrCat("`out_device` is ", out, ", but what reads the result is on ",
                        absl::StrJoin(readers, " and "), "; Dovetail sends it where it is needed"));
  }

  std::string AttentionDevice(int layer) const {
    const MapEntry* entry =
        context_.map.Find(absl::StrCat("model.layers.", layer, ".self_attn.o_proj"));
    return entry == nullptr ? "" : DeviceOf(context_.file, *entry);
  }

  void CheckTransferMap(const YamlNode& map) {
    std::map<int, std::string> moves;
    for (const YamlEntry& entry : map.entries) {
      int layer = 0;
      if (!absl::SimpleAtoi(entry.key, &layer)) {
        YamlNode at;
        Report("transfer-map", Severity::kWarning, {entry.line, entry.col},
               absl::StrCat("`transfer_map` has `", entry.key, "`, which is no layer"));
      } else if (CheckDevice(entry.value, "transfer_map")) {
        moves[layer] = CanonicalDevice(TextOf(entry.value).value_or(""));
        CheckMove(layer, moves[layer], entry);
      }
    }
  }

  void CheckMove(int layer, const std::string& device, const YamlEntry& entry) {
    const std::string real = AttentionDevice(layer);
    const bool is_layer = context_.map.Find(absl::StrCat("model.layers.", layer))->name ==
                          absl::StrCat("model.layers.", layer);
    if (is_layer && real == device) return;
    Report("transfer-map", Severity::kWarning, {entry.line, entry.col},
           is_layer ? absl::StrCat("`transfer_map` moves to ", device, " before layer ", layer,
                                   ", whose attention is on ", real,
                                   "; Dovetail goes by where the modules are")
                    : absl::StrCat("`transfer_map` names layer ", layer,
                                   ", which the model does not have"));
  }

  const LintContext& context_;
  std::vector<Diagnostic>& out_;
  std::set<std::string> seen_classes_;
  std::set<std::string> foreign_;
  std::set<std::pair<absl::string_view, std::string>> fallbacks_;
};

}  // namespace

void LintOps(const LintContext& context, std::vector<Diagnostic>* out) {
  if (!context.map.entries.empty()) OpLint(context, out).Run();
}

}  // namespace dovetail::coordinator::ktransformers
