// StopMatcher: finds stop strings in a text that arrives in pieces and holds back what may become
// one.
//
// The result does not depend on where the pieces are cut: the text ends before the stop string that
// is complete first (of two that end at the same byte, the longer). Only the longest end of the
// text that is the beginning of a stop string is held back, so what is given out never cuts a
// character that the stop strings do not. Linear in the text. One per choice, one thread.
#ifndef DOVETAIL_COORDINATOR_STOP_MATCHER_H_
#define DOVETAIL_COORDINATOR_STOP_MATCHER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace dovetail::coordinator {

class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops);  // none of them empty

  // Takes more text and returns what is certain by now. Once stopped() there is no more.
  std::string Push(absl::string_view text);
  // The text has ended: what was held back.
  std::string Finish();
  bool stopped() const { return stopped_; }
  // The stop string that was found; "" before.
  const std::string& stop() const { return stop_; }

 private:
  // Knuth-Morris-Pratt: `matched` bytes of the stop string are the end of the text so far.
  struct Pattern {
    std::string text;
    std::vector<size_t>
        fallback;  // longest proper prefix that is also a suffix of the first i bytes
    size_t matched = 0;
    void Advance(char byte);
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
  std::string stop_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_STOP_MATCHER_H_
