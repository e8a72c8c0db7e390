#include "coordinator/placement/ktransformers/rule_map.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/placement/ktransformers/op_names.h"
#include "coordinator/placement/ktransformers/yaml11.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using Json = nlohmann::ordered_json;

class Walk {
 public:
  Walk(const ModuleTree& tree, const RuleFile& file, RuleMap* map)
      : tree_(tree), file_(file), map_(*map), too_expensive_(file.rules.size(), false) {
    fits_class_.resize(file.rules.size());
    for (const Rule& rule : file.rules) {
      std::vector<bool>& fits = fits_class_[rule.index];
      for (const PythonClass& c : tree.classes) {
        fits.push_back(rule.match_class.empty() || IsInstance(tree, c, rule.match_class));
      }
    }
  }

  // The module and all below it, under `name`: an expert after the first is not in the tree.
  void Visit(int number, const std::string& name, std::vector<MapEntry>* out) {
    const Module& module = tree_.modules[number];
    MapEntry entry{name, number, FindRule(module, name), true};
    if (entry.rule >= 0) {
      entry.recursive = file_.rules[entry.rule].recursive;
      entry.owns_experts = ClassifyOp(file_.rules[entry.rule].op) == OpClass::kExperts;
    }
    const bool recursive = entry.recursive;
    out->push_back(std::move(entry));
    if (!recursive) return;
    for (int child = number + 1; child < module.end; child = tree_.modules[child].end) {
      const std::string& full = tree_.modules[child].name;
      // What the child adds to its parent's name, dot included where there is one.
      const std::string tail = full.substr(module.name.size());
      if (module.num_experts > 1 && tail == ".0") {
        VisitExperts(child, name, module.num_experts, out);
      } else {
        Visit(child, name + tail, out);
      }
    }
  }

 private:
  // The first expert for all, if all are alike.
  void VisitExperts(int first, const std::string& list, int count, std::vector<MapEntry>* out) {
    std::vector<MapEntry> experts;
    Visit(first, list + ".0", &experts);
    const size_t each = experts.size();
    bool alike = true;
    for (int expert = 1; expert < count; ++expert) {
      const size_t begin = experts.size();
      Visit(first, absl::StrCat(list, ".", expert), &experts);
      alike = alike && std::equal(experts.begin(), experts.begin() + each, experts.begin() + begin,
                                  experts.end(), [](const MapEntry& a, const MapEntry& b) {
                                    return a.rule == b.rule && a.module == b.module;
                                  });
    }
    if (alike) {
      map_.collapsed.push_back(list);
      experts.resize(each);
    }
    out->insert(out->end(), std::make_move_iterator(experts.begin()),
                std::make_move_iterator(experts.end()));
  }

  int FindRule(const Module& module, const std::string& name) {
    for (const Rule& rule : file_.rules) {
      if (Reaches(rule, module, name)) return rule.index;
    }
    return -1;
  }

  // Class first, then name, so that a bad pattern behind a class that does not fit stays unnoticed.
  bool Reaches(const Rule& rule, const Module& module, const std::string& name) {
    if (!fits_class_[rule.index][module.class_index]) return false;
    if (rule.match_error) {
      Report(*rule.match_error);
      return false;
    }
    if (rule.pattern != nullptr && !Search(rule, name)) return false;
    if (rule.replace_error) Report(*rule.replace_error);
    return true;
  }

  bool Search(const Rule& rule, const std::string& name) {
    if (too_expensive_[rule.index]) return false;
    const BoundedRegex::Result result = rule.pattern->Search(name);
    if (result != BoundedRegex::Result::kTooExpensive) {
      return result == BoundedRegex::Result::kMatch;
    }
    too_expensive_[rule.index] = true;
    Report(
        {"expensive-regex", Severity::kError, file_.file, rule.name_place.line, rule.name_place.col,
         absl::StrCat("the regular expression ", Quoted(MakeScalar(*rule.name)),
                      " takes too many steps for `", name, "`; write it without nested repeats")});
    return false;
  }

  void Report(const Diagnostic& error) {
    if (reported_.emplace(error.line, error.col).second) map_.errors.push_back(error);
  }

  const ModuleTree& tree_;
  const RuleFile& file_;
  RuleMap& map_;
  std::vector<std::vector<bool>> fits_class_;  // of a rule, by number of class
  std::vector<bool> too_expensive_;
  std::set<std::pair<int, int>> reported_;
};

Json ToJson(const YamlNode& node) {
  if (node.kind == YamlKind::kList) {
    Json list = Json::array();
    for (const YamlNode& item : node.items) list.push_back(ToJson(item));
    return list;
  }
  if (node.kind == YamlKind::kMap) {
    Json map = Json::object();
    for (const YamlEntry& entry : node.entries) map[entry.key] = ToJson(entry.value);
    return map;
  }
  const Yaml11Value value = ResolveYaml11(node);
  if (const bool* b = std::get_if<bool>(&value)) return *b;
  if (const int64_t* i = std::get_if<int64_t>(&value)) return *i;
  if (const double* d = std::get_if<double>(&value)) return *d;
  if (const std::string* s = std::get_if<std::string>(&value)) return *s;
  return nullptr;
}

constexpr absl::string_view kOwnFields[] = {"generate_device", "prefill_device", "generate_op",
                                            "prefill_op"};

Json EntryJson(const Rule* rule, const MapEntry& entry) {
  Json json = {{"op", rule == nullptr ? "default" : rule->op}};
  for (absl::string_view field : kOwnFields) {
    const YamlNode* value = rule == nullptr ? nullptr : rule->Kwarg(field);
    json[std::string(field)] = value == nullptr ? Json(nullptr) : ToJson(*value);
  }
  if (rule == nullptr) {
    json["generate_device"] = kDefaultDevice;
    json["prefill_device"] = kDefaultDevice;
  } else {
    for (const YamlEntry& kwarg : rule->kwargs) {
      if (std::count(std::begin(kOwnFields), std::end(kOwnFields), kwarg.key) > 0) continue;
      json["other_kwargs"][kwarg.key] = ToJson(kwarg.value);
    }
  }
  json["rule_index"] = rule == nullptr ? Json(nullptr) : Json(rule->index);
  json["recursive"] = entry.recursive;
  return json;
}

}  // namespace

RuleMap MapModules(const ModuleTree& tree, const RuleFile& file) {
  RuleMap map;
  Walk walk(tree, file, &map);
  if (!tree.modules.empty()) walk.Visit(0, "", &map.entries);
  map.by_name.resize(map.entries.size());
  std::iota(map.by_name.begin(), map.by_name.end(), 0);
  std::sort(map.by_name.begin(), map.by_name.end(),
            [&](int a, int b) { return map.entries[a].name < map.entries[b].name; });
  return map;
}

const MapEntry* RuleMap::Find(absl::string_view name) const {
  while (true) {
    const auto it = std::lower_bound(
        by_name.begin(), by_name.end(), name,
        [&](int number, absl::string_view wanted) { return entries[number].name < wanted; });
    if (it != by_name.end() && entries[*it].name == name) {
      const MapEntry& entry = entries[*it];
      return &entry;
    }
    if (name.empty()) return nullptr;
    const size_t dot = name.rfind('.');
    name = dot == absl::string_view::npos ? absl::string_view() : name.substr(0, dot);
  }
}

const MapEntry* RuleMap::FindOwner(absl::string_view name) const {
  constexpr absl::string_view kExperts = ".experts";
  const size_t list = name.rfind(absl::StrCat(kExperts, "."));
  if (list != absl::string_view::npos) {
    const MapEntry* entry = Find(name.substr(0, list + kExperts.size()));
    if (entry != nullptr && entry->owns_experts) return entry;
  }
  return Find(name);
}

bool Fits(const ModuleTree& tree, const Module& module, const Rule& rule) {
  if (rule.match_error) return false;
  if (!rule.match_class.empty() &&
      !IsInstance(tree, tree.classes[module.class_index], rule.match_class)) {
    return false;
  }
  return rule.pattern == nullptr ||
         rule.pattern->Search(module.name) == BoundedRegex::Result::kMatch;
}

std::string RuleMapJson(const RuleMap& map, const RuleFile& file) {
  // Written entry by entry: an ordered JSON object looks through all its keys for each new one.
  const auto dump = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  std::string text = "{\"modules\": {";
  for (const MapEntry& entry : map.entries) {
    const Rule* rule = entry.rule < 0 ? nullptr : &file.rules[entry.rule];
    absl::StrAppend(&text, &entry == map.entries.data() ? "\n" : ",\n", dump(entry.name), ": ",
                    dump(EntryJson(rule, entry)));
  }
  return text + "\n}}";
}

}  // namespace dovetail::coordinator::ktransformers
