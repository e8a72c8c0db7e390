#include "coordinator/placement/plan_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/model_config.h"

namespace dovetail::coordinator {
namespace {

// Neighbouring ops of the same shape: layers first..last, each with attention, mlp or both.
struct OpGroup {
  OpKind kind;         // of the first op
  bool whole = false;  // attention and mlp of each layer
  int first = -1;
  int last = -1;
};

std::vector<OpGroup> GroupOps(absl::Span<const Op> ops) {
  std::vector<OpGroup> groups;
  for (size_t i = 0; i < ops.size(); ++i) {
    OpGroup group{ops[i].kind, false, ops[i].layer, ops[i].layer};
    if (ops[i].kind == OpKind::kAttention && i + 1 < ops.size() &&
        ops[i + 1].kind == OpKind::kMlp && ops[i + 1].layer == ops[i].layer) {
      group.whole = true;
      ++i;
    }
    const bool continues = !groups.empty() && group.first >= 0 &&
                           groups.back().kind == group.kind && groups.back().whole == group.whole &&
                           groups.back().last + 1 == group.first;
    if (continues) {
      groups.back().last = group.last;
    } else {
      groups.push_back(group);
    }
  }
  return groups;
}

std::string Range(const OpGroup& group) {
  return group.first == group.last ? absl::StrCat(group.first)
                                   : absl::StrCat(group.first, "-", group.last);
}

std::string DescribeGroup(const OpGroup& group) {
  switch (group.kind) {
    case OpKind::kEmbedding:
      return "embedding";
    case OpKind::kNorm:
      return "norm";
    case OpKind::kLmHead:
      return "lm_head";
    case OpKind::kAttention:
    case OpKind::kMlp:
      break;
  }
  return absl::StrCat(group.first == group.last ? "layer " : "layers ", Range(group),
                      group.whole                        ? ""
                      : group.kind == OpKind::kAttention ? " attention"
                                                         : " mlp");
}

}  // namespace

std::vector<std::string> CollapseModules(absl::Span<const Op> ops) {
  std::vector<std::string> names;
  for (const OpGroup& group : GroupOps(ops)) {
    std::string name = model::ModuleName({group.kind, group.first});
    const std::string number = absl::StrCat(".", group.first, ".");
    const size_t at = group.first < 0 ? std::string::npos : name.find(number);
    if (at != std::string::npos) {
      const std::string part = name.substr(at + number.size());
      name = absl::StrCat(name.substr(0, at), ".", Range(group));
      if (!group.whole) absl::StrAppend(&name, ".", part);
    }
    names.push_back(std::move(name));
  }
  return names;
}

std::string DescribeOps(absl::Span<const Op> ops) {
  return absl::StrJoin(GroupOps(ops), ", ", [](std::string* out, const OpGroup& group) {
    absl::StrAppend(out, DescribeGroup(group));
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
  std::vector<std::vector<std::string>> rows = {{"worker", "weights", "KV cache", "workspace",
                                                 "communication", "runtime", "total", "budget",
                                                 ""}};
  for (const PlacedWorker& worker : workers) {
    const model::WorkerMemory& memory = worker.memory;
    const int64_t left = worker.device.budget() - memory.total();
    rows.push_back({worker.device.name, FormatBytes(memory.weights_packed), FormatBytes(memory.kv),
                    FormatBytes(memory.workspace), FormatBytes(memory.communication),
                    FormatBytes(memory.runtime), FormatBytes(memory.total()),
                    FormatBytes(worker.device.budget()),
                    left >= 0 ? "fits" : absl::StrCat(FormatBytes(-left), " too little")});
  }
  return FormatTable(rows);
}

}  // namespace dovetail::coordinator
