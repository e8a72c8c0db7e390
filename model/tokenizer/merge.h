// MergeByPriority: the loop that byte-level BPE and SentencePiece share. Neighbouring symbols are
// merged, best pair first (the leftmost of equals), until no pair can be.
//
// Short words, nearly all there are, are scanned; long ones go through a heap, so that a single
// word of megabytes costs n log n. Both ways give the same symbols.
#ifndef DOVETAIL_MODEL_TOKENIZER_MERGE_H_
#define DOVETAIL_MODEL_TOKENIZER_MERGE_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace dovetail::model {

struct Symbol {
  uint32_t begin = 0;   // in the text
  uint32_t length = 0;  // bytes
  int32_t id = -1;
};

// What merging two symbols gives. Lower priorities go first.
struct MergeResult {
  double priority = std::numeric_limits<double>::infinity();  // infinite: they do not merge
  int32_t id = -1;
  bool possible() const { return priority < std::numeric_limits<double>::infinity(); }
};

// Memory that is used again from word to word. One per Encode() call.
struct MergeScratch {
  struct Candidate {
    double priority;
    uint32_t left;
    uint32_t right;
    uint32_t length;  // of both together: tells whether they are still what they were
    int32_t id;
  };
  struct Links {
    int32_t previous;
    int32_t next;
  };
  std::vector<MergeResult> pairs;
  std::vector<Candidate> heap;
  std::vector<Links> links;
};

inline constexpr size_t kLongestScannedWord = 48;

// `lookup(left, right)` returns the MergeResult of two neighbours.
template <typename Lookup>
void MergeShortWord(const Lookup& lookup, std::vector<Symbol>* symbols, MergeScratch* scratch) {
  std::vector<Symbol>& word = *symbols;
  std::vector<MergeResult>& pairs = scratch->pairs;
  pairs.clear();
  for (size_t i = 0; i + 1 < word.size(); ++i) pairs.push_back(lookup(word[i], word[i + 1]));
  while (!pairs.empty()) {
    const auto best = std::min_element(
        pairs.begin(), pairs.end(),
        [](const MergeResult& a, const MergeResult& b) { return a.priority < b.priority; });
    if (!best->possible()) return;
    const size_t at = best - pairs.begin();
    word[at].length += word[at + 1].length;
    word[at].id = best->id;
    word.erase(word.begin() + at + 1);
    pairs.erase(best);
    if (at > 0) pairs[at - 1] = lookup(word[at - 1], word[at]);
    if (at < pairs.size()) pairs[at] = lookup(word[at], word[at + 1]);
  }
}

template <typename Lookup>
void MergeLongWord(const Lookup& lookup, std::vector<Symbol>* symbols, MergeScratch* scratch) {
  using Candidate = MergeScratch::Candidate;
  std::vector<Symbol>& word = *symbols;
  auto& heap = scratch->heap;
  auto& links = scratch->links;
  const auto worse = [](const Candidate& a, const Candidate& b) {
    return a.priority > b.priority || (a.priority == b.priority && a.left > b.left);
  };
  const auto candidate = [&](int32_t left, int32_t right) {
    const MergeResult merge = lookup(word[left], word[right]);
    if (!merge.possible()) return false;
    heap.push_back({merge.priority, static_cast<uint32_t>(left), static_cast<uint32_t>(right),
                    word[left].length + word[right].length, merge.id});
    return true;
  };
  heap.clear();
  links.clear();
  const int32_t count = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < count; ++i) links.push_back({i - 1, i + 1 < count ? i + 1 : -1});
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i, i + 1);
  std::make_heap(heap.begin(), heap.end(), worse);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), worse);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = word[best.left];
    Symbol& right = word[best.right];
    const bool stale =
        left.length == 0 || right.length == 0 || left.length + right.length != best.length;
    if (stale) continue;
    left.length = best.length;
    left.id = best.id;
    right.length = 0;
    const int32_t next = links[best.right].next;
    const int32_t previous = links[best.left].previous;
    links[best.left].next = next;
    if (next >= 0) links[next].previous = static_cast<int32_t>(best.left);
    const auto at = static_cast<int32_t>(best.left);
    if (previous >= 0 && candidate(previous, at)) std::push_heap(heap.begin(), heap.end(), worse);
    if (next >= 0 && candidate(at, next)) std::push_heap(heap.begin(), heap.end(), worse);
  }
  std::erase_if(word, [](const Symbol& symbol) { return symbol.length == 0; });
}

template <typename Lookup>
void MergeByPriority(const Lookup& lookup, std::vector<Symbol>* symbols, MergeScratch* scratch) {
  if (symbols->size() <= kLongestScannedWord) {
    MergeShortWord(lookup, symbols, scratch);
  } else {
    MergeLongWord(lookup, symbols, scratch);
  }
}

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_MERGE_H_
