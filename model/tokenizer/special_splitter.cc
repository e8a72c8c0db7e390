#include "model/tokenizer/special_splitter.h"

namespace dovetail::model {

void SpecialSplitter::Add(absl::string_view text, TokenId id, bool always) {
  if (text.empty()) return;
  uint32_t node = 0;
  for (char byte : text) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
    const auto [it, is_new] = edges_.try_emplace(edge, static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = it->second;
  }
  if (nodes_[node].id >= 0) return;  // the same text twice: the lower id stays
  nodes_[node] = {id, always};
  starts_[static_cast<uint8_t>(text[0])] = true;
  if (always) always_starts_[static_cast<uint8_t>(text[0])] = true;
}

SpecialSplitter::Match SpecialSplitter::MatchAt(absl::string_view text, size_t at,
                                                bool parse_special) const {
  Match best{at, 0, -1};
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (nodes_[node].id >= 0 && (parse_special || nodes_[node].always)) {
      best.length = i + 1 - at;
      best.id = nodes_[node].id;
    }
  }
  return best;
}

SpecialSplitter::Match SpecialSplitter::Find(absl::string_view text, size_t from,
                                             bool parse_special) const {
  const std::array<bool, 256>& starts = parse_special ? starts_ : always_starts_;
  for (size_t at = from; at < text.size(); ++at) {
    if (!starts[static_cast<uint8_t>(text[at])]) continue;
    const Match match = MatchAt(text, at, parse_special);
    if (match.length > 0) return match;
  }
  return {text.size(), 0, -1};
}

}  // namespace dovetail::model
