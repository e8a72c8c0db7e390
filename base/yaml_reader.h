// YamlReader: YAML text to a plain tree with line numbers, and typed reads that collect mistakes.
//
// ReadYaml() turns one document into a tree of YamlNode; it is the only door to yaml-cpp, whose
// exceptions end here. Text is hostile until checked: size, depth, number of nodes and what aliases
// expand to are bounded by YamlLimits. Lines and columns count from 1.
//
// Mistakes collects everything that is wrong with one source, so that a person sees all of it at
// once. The Read* helpers report to it and return nothing where the value is not usable. Pure
// functions and plain data.
#ifndef DOVETAIL_BASE_YAML_READER_H_
#define DOVETAIL_BASE_YAML_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail {

enum class YamlKind { kNull, kScalar, kList, kMap };

struct YamlEntry;

struct YamlNode {
  YamlKind kind = YamlKind::kNull;
  std::string scalar;           // of kScalar
  std::vector<YamlNode> items;  // of kList
  std::vector<YamlEntry>
      entries;   // of kMap, in file order; duplicates are kept (CheckMap reports them)
  int line = 0;  // from 1; 0: not from a file
  int col = 0;
  bool plain = false;  // of kScalar: without quotes and tag, so a schema may give it a type

  // The value of the first entry with this key, nullptr where absent or not a map.
  const YamlNode* Find(absl::string_view key) const;
};

struct YamlEntry {
  std::string key;
  int line = 0;
  int col = 0;
  YamlNode value;
};

struct YamlLimits {
  int64_t max_text_bytes = 1 << 20;
  int max_depth = 64;
  int64_t max_nodes = 100'000;          // after expanding aliases
  int64_t max_scalar_bytes = 16 << 20;  // after expanding aliases
};

// Parses the only document of `text`. InvalidArgument: "file:line:col: message". Empty text is
// kNull.
absl::StatusOr<YamlNode> ReadYaml(absl::string_view text, const std::string& file,
                                  const YamlLimits& limits = {});

// A scalar that did not come from a file (a flag's value).
YamlNode MakeScalar(absl::string_view text);

// What is wrong with one source, in the order of lines. `source` is a file's name or "--flag".
class Mistakes {
 public:
  explicit Mistakes(std::string source) : source_(std::move(source)) {}

  // "file:line:col", or only the source where the node has no line.
  std::string Where(const YamlNode& node) const { return Where(node.line, node.col); }
  std::string Where(int line, int col) const;

  void Add(const YamlNode& at, absl::string_view message) { Add(at.line, at.col, message); }
  void Add(int line, int col, absl::string_view message);
  void Append(const Mistakes& other);  // after ours, whatever their lines
  bool empty() const { return messages_.empty(); }
  int size() const { return static_cast<int>(messages_.size()); }

  // Ok without mistakes, else InvalidArgument with one message a line (the first hundred).
  absl::Status ToStatus() const;

 private:
  struct Message {
    int group;
    int line;
    int col;
    std::string text;
  };
  std::string source_;
  std::vector<Message> messages_;
  int num_groups_ = 1;
};

// True for a map. Reports another kind, duplicate keys and unknown keys (with the nearest known
// one). `what` names the map in messages: "a rule".
bool CheckMap(const YamlNode& node, absl::string_view what,
              absl::Span<const absl::string_view> known_keys, Mistakes* mistakes);

// Scalars. `name` is the key in messages: "`port` must be a number from 0 to 65535, got `x`".
std::optional<int64_t> ReadInt(const YamlNode& node, absl::string_view name, int64_t lowest,
                               int64_t highest, Mistakes* mistakes);
std::optional<bool> ReadBool(const YamlNode& node, absl::string_view name, Mistakes* mistakes);
std::optional<std::string> ReadText(const YamlNode& node, absl::string_view name,
                                    Mistakes* mistakes);

// How a value looks in a message: `abc`, "a list", "a map", "nothing". Long scalars are cut.
std::string Quoted(const YamlNode& node);

// The candidate that `name` is most likely a misspelling of; "" where none is near.
absl::string_view NearestName(absl::string_view name,
                              absl::Span<const absl::string_view> candidates);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_YAML_READER_H_
