// Python's string methods on UTF-8: positions and lengths are in code points, white space and case
// are Unicode's. Inputs are valid UTF-8. Pure functions.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_TEXT_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace dovetail::model::jinja {

int64_t CodePointCount(absl::string_view text);
// The byte where code point `index` begins; the end if there are fewer.
size_t ByteOffset(absl::string_view text, int64_t index);

bool IsSpace(char32_t code_point);  // str.isspace of one character

absl::string_view StripText(absl::string_view text, bool left, bool right);
// Strips characters of the set `chars`.
absl::string_view StripChars(absl::string_view text, absl::string_view chars, bool left,
                             bool right);

// max_splits < 0: no limit. SplitSpace is split() without a separator.
std::vector<absl::string_view> SplitSpace(absl::string_view text, int64_t max_splits);
std::vector<absl::string_view> RSplitSpace(absl::string_view text, int64_t max_splits);
std::vector<absl::string_view> SplitText(absl::string_view text, absl::string_view separator,
                                         int64_t max_splits);
std::vector<absl::string_view> RSplitText(absl::string_view text, absl::string_view separator,
                                          int64_t max_splits);
std::vector<absl::string_view> SplitLines(absl::string_view text, bool keep_ends);

int64_t CountText(absl::string_view text, absl::string_view part);
std::string ReplaceText(absl::string_view text, absl::string_view from, absl::string_view to,
                        int64_t max_count);

std::string UpperText(absl::string_view text);
std::string LowerText(absl::string_view text);
std::string CapitalizeText(absl::string_view text);  // first character upper, others lower
std::string TitleText(absl::string_view text);       // str.title: every run of letters

// What str.isalpha() and its like ask; false for "".
enum class TextClass { kAlpha, kAlnum, kDigit, kSpace, kLower, kUpper };
bool IsAll(absl::string_view text, TextClass text_class);
// Whether repr() shows the character as it is.
bool IsPrintable(absl::string_view character);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_TEXT_H_
