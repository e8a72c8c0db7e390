#include "base/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace dovetail {
namespace {

// Builds our tree from yaml-cpp's events. A handler cannot stop the parser without throwing, so
// after the first problem it only ignores what follows; the text is bounded, hence so is that.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const YamlLimits& limits) : limits_(limits) {}

  const std::string& problem() const { return problem_; }
  int problem_line() const { return problem_line_; }
  int problem_col() const { return problem_col_; }
  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Begin(YamlKind::kNull, mark, anchor);
    End();
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!Begin(YamlKind::kScalar, mark, anchor)) return;
    open_.back().node.plain = tag == "?";  // yaml-cpp's mark of a scalar without quotes
    open_.back().node.scalar = value;
    open_.back().cost.scalar_bytes = static_cast<int64_t>(value.size());
    Charge({0, static_cast<int64_t>(value.size())}, mark);
    End();
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Begin(YamlKind::kList, mark, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Begin(YamlKind::kMap, mark, anchor);
  }
  void OnSequenceEnd() override { End(); }
  void OnMapEnd() override { End(); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (!problem_.empty()) return;
    auto it = anchors_.find(anchor);
    if (it == anchors_.end()) return Fail(mark, "an alias may not stand inside its own anchor");
    if (static_cast<int>(open_.size()) + it->second.depth > limits_.max_depth) {
      return Fail(mark, absl::StrCat("nested more than ", limits_.max_depth, " levels deep"));
    }
    if (!Charge(it->second.cost, mark)) return;
    YamlNode copy = it->second.node;
    copy.line = mark.line + 1;
    copy.col = mark.column + 1;
    Attach(std::move(copy), it->second.cost, it->second.depth);
  }

 private:
  struct Cost {
    int64_t nodes = 0;
    int64_t scalar_bytes = 0;
  };
  struct Open {  // a node whose end has not come yet
    YamlNode node;
    YAML::anchor_t anchor = 0;
    Cost cost;
    int depth = 1;
    bool has_key = false;  // of a map: the key of the next entry is known
    YamlEntry entry;
  };
  struct Anchored {
    YamlNode node;
    Cost cost;
    int depth = 1;
  };

  void Fail(const YAML::Mark& mark, std::string problem) {
    if (!problem_.empty()) return;
    problem_ = std::move(problem);
    problem_line_ = mark.line + 1;
    problem_col_ = mark.column + 1;
  }

  bool Charge(const Cost& cost, const YAML::Mark& mark) {
    used_.nodes += cost.nodes;
    used_.scalar_bytes += cost.scalar_bytes;
    if (used_.nodes <= limits_.max_nodes && used_.scalar_bytes <= limits_.max_scalar_bytes) {
      return true;
    }
    Fail(mark, absl::StrCat("too large: more than ", limits_.max_nodes, " values or ",
                            limits_.max_scalar_bytes, " bytes once aliases are expanded"));
    return false;
  }

  bool Begin(YamlKind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (!problem_.empty()) return false;
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      Fail(mark, absl::StrCat("nested more than ", limits_.max_depth, " levels deep"));
      return false;
    }
    if (!Charge({1, 0}, mark)) return false;
    Open open;
    open.node.kind = kind;
    open.node.line = mark.line + 1;
    open.node.col = mark.column + 1;
    open.anchor = anchor;
    open.cost.nodes = 1;
    open_.push_back(std::move(open));
    return true;
  }

  void End() {
    if (!problem_.empty()) return;
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.anchor != 0) {
      // The copy that later aliases are made from counts as well: anchors may nest.
      YAML::Mark mark;
      mark.line = done.node.line - 1;
      mark.column = done.node.col - 1;
      if (!Charge(done.cost, mark)) return;
      anchors_[done.anchor] = {done.node, done.cost, done.depth};
    }
    Attach(std::move(done.node), done.cost, done.depth);
  }

  void Attach(YamlNode node, const Cost& cost, int depth) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    parent.cost.nodes += cost.nodes;
    parent.cost.scalar_bytes += cost.scalar_bytes;
    parent.depth = std::max(parent.depth, depth + 1);
    if (parent.node.kind == YamlKind::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (parent.has_key) {
      if (node.kind == YamlKind::kNull) {  // yaml-cpp's place for it is that of whatever comes next
        node.line = parent.entry.line;
        node.col = parent.entry.col;
      }
      parent.entry.value = std::move(node);
      parent.node.entries.push_back(std::move(parent.entry));
      parent.entry = YamlEntry();
      parent.has_key = false;
    } else if (node.kind == YamlKind::kScalar) {
      parent.entry.key = std::move(node.scalar);
      parent.entry.line = node.line;
      parent.entry.col = node.col;
      parent.has_key = true;
    } else {
      problem_ = "a key must be a word";
      problem_line_ = node.line;
      problem_col_ = node.col;
    }
  }

  const YamlLimits limits_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  Cost used_;
  YamlNode root_;
  std::string problem_;
  int problem_line_ = 0;
  int problem_col_ = 0;
};

// Letters inserted, left out, replaced or swapped with their neighbour.
int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = static_cast<int>(i + j);
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1,
                             cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

bool ParseText(absl::string_view text, YamlNode* root, TreeBuilder* builder, Mistakes* mistakes) {
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    if (parser.HandleNextDocument(*builder) && builder->problem().empty()) {
      YamlLimits none;
      none.max_nodes = 0;  // anything in a second document is one too many
      TreeBuilder second(none);
      if (parser.HandleNextDocument(second)) {
        mistakes->Add(second.problem_line(), second.problem_col(),
                      "only one YAML document is expected");
      }
    }
  } catch (const YAML::Exception& e) {
    const bool placed = !e.mark.is_null();
    mistakes->Add(placed ? e.mark.line + 1 : 0, placed ? e.mark.column + 1 : 0,
                  absl::StrCat("not valid YAML: ", e.msg));
  } catch (const std::exception& e) {
    mistakes->Add(0, 0, absl::StrCat("not valid YAML: ", e.what()));
  }
  if (!builder->problem().empty()) {
    mistakes->Add(builder->problem_line(), builder->problem_col(), builder->problem());
  }
  *root = builder->TakeRoot();
  return mistakes->empty();
}

}  // namespace

const YamlNode* YamlNode::Find(absl::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

absl::StatusOr<YamlNode> ReadYaml(absl::string_view text, const std::string& file,
                                  const YamlLimits& limits) {
  Mistakes mistakes(file);
  YamlNode root;
  if (static_cast<int64_t>(text.size()) > limits.max_text_bytes) {
    mistakes.Add(
        0, 0,
        absl::StrCat("has ", text.size(), " bytes; at most ", limits.max_text_bytes, " are read"));
    return mistakes.ToStatus();
  }
  TreeBuilder builder(limits);
  if (!ParseText(text, &root, &builder, &mistakes)) return mistakes.ToStatus();
  return root;
}

YamlNode MakeScalar(absl::string_view text) {
  YamlNode node;
  node.kind = YamlKind::kScalar;
  node.scalar = std::string(text);
  return node;
}

std::string Mistakes::Where(int line, int col) const {
  return line > 0 ? absl::StrCat(source_, ":", line, ":", col) : source_;
}

void Mistakes::Add(int line, int col, absl::string_view message) {
  messages_.push_back({0, line, col, absl::StrCat(Where(line, col), ": ", message)});
}

void Mistakes::Append(const Mistakes& other) {
  for (Message message : other.messages_) {
    message.group += num_groups_;
    messages_.push_back(std::move(message));
  }
  num_groups_ += other.num_groups_;
}

absl::Status Mistakes::ToStatus() const {
  if (messages_.empty()) return absl::OkStatus();
  std::vector<Message> sorted = messages_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Message& a, const Message& b) {
    return std::tie(a.group, a.line, a.col) < std::tie(b.group, b.line, b.col);
  });
  constexpr size_t kMostShown = 100;
  const size_t num_hidden = sorted.size() - std::min(sorted.size(), kMostShown);
  sorted.resize(sorted.size() - num_hidden);
  std::string text = absl::StrJoin(sorted, "\n", [](std::string* out, const Message& message) {
    absl::StrAppend(out, message.text);
  });
  if (num_hidden > 0) absl::StrAppend(&text, "\n", source_, ": and ", num_hidden, " more mistakes");
  return absl::InvalidArgumentError(text);
}

bool CheckMap(const YamlNode& node, absl::string_view what,
              absl::Span<const absl::string_view> known_keys, Mistakes* mistakes) {
  if (node.kind != YamlKind::kMap) {
    mistakes->Add(node, absl::StrCat(what, " must be a map, got ", Quoted(node)));
    return false;
  }
  std::map<absl::string_view, const YamlEntry*> seen;
  for (const YamlEntry& entry : node.entries) {
    auto [it, is_new] = seen.emplace(entry.key, &entry);
    if (!is_new) {
      mistakes->Add(entry.line, entry.col,
                    absl::StrCat("`", entry.key, "` is given twice, first at ",
                                 mistakes->Where(it->second->line, it->second->col)));
      continue;
    }
    if (std::find(known_keys.begin(), known_keys.end(), entry.key) != known_keys.end()) continue;
    const absl::string_view nearest = NearestName(entry.key, known_keys);
    std::string hint = nearest.empty() ? absl::StrCat("known: ", absl::StrJoin(known_keys, ", "))
                                       : absl::StrCat("did you mean `", nearest, "`?");
    mistakes->Add(
        entry.line, entry.col,
        absl::StrCat("unknown key ", Quoted(MakeScalar(entry.key)), " in ", what, "; ", hint));
  }
  return true;
}

std::optional<int64_t> ReadInt(const YamlNode& node, absl::string_view name, int64_t lowest,
                               int64_t highest, Mistakes* mistakes) {
  int64_t value = 0;
  if (node.kind == YamlKind::kScalar && absl::SimpleAtoi(node.scalar, &value) && value >= lowest &&
      value <= highest) {
    return value;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be a number from ", lowest, " to ", highest,
                                   ", got ", Quoted(node)));
  return std::nullopt;
}

std::optional<bool> ReadBool(const YamlNode& node, absl::string_view name, Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar) {
    if (node.scalar == "true" || node.scalar == "yes" || node.scalar == "on") return true;
    if (node.scalar == "false" || node.scalar == "no" || node.scalar == "off") return false;
  }
  mistakes->Add(node, absl::StrCat("`", name, "` must be true or false, got ", Quoted(node)));
  return std::nullopt;
}

std::optional<std::string> ReadText(const YamlNode& node, absl::string_view name,
                                    Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar && !node.scalar.empty()) return node.scalar;
  mistakes->Add(node, absl::StrCat("`", name, "` must be a word, got ", Quoted(node)));
  return std::nullopt;
}

std::string Quoted(const YamlNode& node) {
  constexpr size_t kLongest = 60;
  switch (node.kind) {
    case YamlKind::kNull:
      return "nothing";
    case YamlKind::kList:
      return "a list";
    case YamlKind::kMap:
      return "a map";
    case YamlKind::kScalar:
      break;
  }
  if (node.scalar.empty()) return "an empty text";
  if (node.scalar.size() <= kLongest) return absl::StrCat("`", node.scalar, "`");
  return absl::StrCat("`", node.scalar.substr(0, kLongest), "...`");
}

absl::string_view NearestName(absl::string_view name,
                              absl::Span<const absl::string_view> candidates) {
  constexpr size_t kLongest = 64;  // nobody misspells more than that
  if (name.size() > kLongest) return "";
  absl::string_view nearest = "";
  int best = 1 + static_cast<int>(std::max<size_t>(1, name.size() / 3));
  for (absl::string_view candidate : candidates) {
    const int distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace dovetail
