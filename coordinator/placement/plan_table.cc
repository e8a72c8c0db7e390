#include "coordinator/placement/plan_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/model_config.h"

namespace dovetail::coordinator {
namespace {

// What neighbouring ops hold of a layer, or of each of several layers.
struct Parts {
  bool attention = false;
  bool mlp = false;  // all of it
  bool router = false;
  bool shared_experts = false;
  bool all_experts = false;
  Ranges experts;  // some of them

  bool whole() const { return attention && mlp; }
  bool operator==(const Parts&) const = default;
};

// Layers first..last, each with the same parts; or one op of no layer.
struct OpGroup {
  OpKind kind;  // of the first op
  int first = -1;
  int last = -1;
  Parts parts;
};

void AddPart(const Op& op, Parts* parts) {
  parts->attention |= op.kind == OpKind::kAttention;
  parts->mlp |= op.kind == OpKind::kMlp;
  parts->router |= op.kind == OpKind::kRouter;
  parts->shared_experts |= op.kind == OpKind::kSharedExperts;
  if (op.kind == OpKind::kExperts) {
    parts->experts.emplace_back(op.expert_begin, op.expert_end - 1);
  }
}

void JoinNeighbours(Ranges* ranges) {
  std::sort(ranges->begin(), ranges->end());
  Ranges joined;
  for (const auto& range : *ranges) {
    if (!joined.empty() && joined.back().second + 1 == range.first) {
      joined.back().second = range.second;
    } else {
      joined.push_back(range);
    }
  }
  *ranges = std::move(joined);
}

// Says all of something where all of it is there.
void Simplify(const model::ExpertConfig& experts, Parts* parts) {
  JoinNeighbours(&parts->experts);
  if (parts->experts == Ranges{{0, experts.count - 1}}) {
    parts->experts.clear();
    parts->all_experts = true;
  }
  const bool has_shared = experts.shared_intermediate_size > 0;
  if (parts->all_experts && parts->router && parts->shared_experts == has_shared) {
    *parts = {.attention = parts->attention, .mlp = true};
  }
}

std::vector<OpGroup> GroupOps(const model::ModelConfig& config, absl::Span<const Op> ops) {
  std::vector<OpGroup> groups;
  for (size_t i = 0; i < ops.size();) {
    OpGroup group{ops[i].kind, ops[i].layer, ops[i].layer, {}};
    if (group.first < 0) {
      groups.push_back(group);
      ++i;
      continue;
    }
    // Until the layer is over, or comes from its beginning again.
    do {
      AddPart(ops[i++], &group.parts);
    } while (i < ops.size() && ops[i].layer == group.first && ops[i].kind != OpKind::kAttention);
    Simplify(config.experts, &group.parts);
    if (!groups.empty() && groups.back().first >= 0 && groups.back().parts == group.parts &&
        groups.back().last + 1 == group.first) {
      groups.back().last = group.last;
    } else {
      groups.push_back(group);
    }
  }
  return groups;
}

std::string Range(int first, int last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
}

std::string JoinRanges(const Ranges& ranges, absl::string_view separator) {
  return absl::StrJoin(ranges, separator, [](std::string* out, const std::pair<int, int>& range) {
    absl::StrAppend(out, Range(range.first, range.second));
  });
}

std::string DescribeParts(const Parts& parts) {
  std::vector<std::string> names;
  if (parts.attention) names.emplace_back("attention");
  if (parts.mlp) names.emplace_back("mlp");
  if (parts.router) names.emplace_back("router");
  if (parts.shared_experts) names.emplace_back("shared experts");
  if (parts.all_experts) names.emplace_back("experts");
  if (!parts.experts.empty()) {
    names.push_back(absl::StrCat("experts ", JoinRanges(parts.experts, " ")));
  }
  return absl::StrJoin(names, " + ");
}

std::string DescribeGroup(const OpGroup& group) {
  if (group.kind == OpKind::kEmbedding) return "embedding";
  if (group.kind == OpKind::kNorm) return "norm";
  if (group.kind == OpKind::kLmHead) return "lm_head";
  return absl::StrCat(group.first == group.last ? "layer " : "layers ",
                      Range(group.first, group.last),
                      group.parts.whole() ? "" : absl::StrCat(" ", DescribeParts(group.parts)));
}

void AppendModules(const OpGroup& group, std::vector<std::string>* names) {
  if (group.first < 0) {
    names->push_back(model::ModuleName({group.kind}));
    return;
  }
  const std::string layers = absl::StrCat("model.layers.", Range(group.first, group.last));
  const Parts& parts = group.parts;
  if (parts.whole()) {
    names->push_back(layers);
    return;
  }
  if (parts.attention) names->push_back(layers + ".self_attn");
  if (parts.mlp) names->push_back(layers + ".mlp");
  if (parts.router) names->push_back(layers + ".mlp.gate");
  if (parts.shared_experts) names->push_back(layers + ".mlp.shared_experts");
  if (parts.all_experts) names->push_back(layers + ".mlp.experts");
  if (!parts.experts.empty()) {
    names->push_back(absl::StrCat(layers, ".mlp.experts[", JoinRanges(parts.experts, ","), "]"));
  }
}

}  // namespace

std::vector<std::string> CollapseModules(const model::ModelConfig& config,
                                         absl::Span<const Op> ops) {
  std::vector<std::string> names;
  for (const OpGroup& group : GroupOps(config, ops)) AppendModules(group, &names);
  return names;
}

std::string DescribeOps(const model::ModelConfig& config, absl::Span<const Op> ops) {
  return absl::StrJoin(GroupOps(config, ops), ", ", [](std::string* out, const OpGroup& group) {
    absl::StrAppend(out, DescribeGroup(group));
  });
}

std::string SegmentText(const Segment& segment) {
  if (segment.members.empty()) return segment.worker;
  return absl::StrJoin(segment.members, " + ", [](std::string* out, const Member& member) {
    absl::StrAppend(out, member.worker);
  });
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, "  ", i == 0 ? row[i] : padding, i == 0 ? padding : row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

std::string FormatMemoryTable(const std::vector<PlacedWorker>& workers) {
  const bool in_place = std::any_of(workers.begin(), workers.end(), [](const PlacedWorker& w) {
    return w.memory.weights_mapped > 0;
  });
  std::vector<std::vector<std::string>> rows = {{"worker", "weights", "KV cache", "workspace",
                                                 "communication", "runtime", "total", "budget",
                                                 ""}};
  if (in_place) rows.back().push_back("read in place");
  for (const PlacedWorker& worker : workers) {
    const model::WorkerMemory& memory = worker.memory;
    const int64_t left = worker.device.budget() - memory.total();
    rows.push_back({worker.device.name, FormatBytes(memory.weights_packed), FormatBytes(memory.kv),
                    FormatBytes(memory.workspace + memory.staging),
                    FormatBytes(memory.communication), FormatBytes(memory.runtime),
                    FormatBytes(memory.total()), FormatBytes(worker.device.budget()),
                    left >= 0 ? "fits" : absl::StrCat(FormatBytes(-left), " too little")});
    if (in_place) rows.back().push_back(FormatBytes(memory.weights_mapped));
  }
  return FormatTable(rows);
}

}  // namespace dovetail::coordinator
