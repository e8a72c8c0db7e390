// BoundedRegex: a regular expression from a person's file, searched in module or tensor names with
// the meaning that its own program gives it, and with bounds so that no pattern can hang us.
//
// kPython is Python's `re` (KTransformers' rules), kEcmaScript is std::regex's default (llama.cpp's
// --override-tensor). Both are carried out by PCRE2; what Python writes differently is translated,
// and what PCRE2 alone knows is refused. An object is used by one thread at a time.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_BOUNDED_REGEX_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_BOUNDED_REGEX_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::coordinator {

enum class RegexSyntax { kPython, kEcmaScript };

class BoundedRegex {
 public:
  // kTooExpensive: the pattern needs more steps for this text than a search may take.
  enum class Result { kNoMatch, kMatch, kTooExpensive };

  // InvalidArgument: "message at offset N", N counting the pattern's characters from 0.
  static absl::StatusOr<BoundedRegex> Compile(absl::string_view pattern, RegexSyntax syntax);

  BoundedRegex(BoundedRegex&&) noexcept;
  BoundedRegex& operator=(BoundedRegex&&) noexcept;
  ~BoundedRegex();

  // Whether the pattern matches anywhere in `text`.
  Result Search(absl::string_view text) const;

 private:
  struct Compiled;
  explicit BoundedRegex(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_BOUNDED_REGEX_H_
