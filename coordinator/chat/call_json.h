// JSON as a model writes it, piece by piece. Each object belongs to one answer; not thread-safe.
#ifndef DOVETAIL_COORDINATOR_CHAT_CALL_JSON_H_
#define DOVETAIL_COORDINATOR_CHAT_CALL_JSON_H_

#include <string>

#include "absl/strings/string_view.h"

namespace dovetail::coordinator {

// Finds the end of an object without reading what is in it.
class ObjectScanner {
 public:
  // How many bytes of `text` belong to the object; done() when it is whole.
  size_t Scan(absl::string_view text);
  bool done() const { return done_; }

 private:
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool done_ = false;
};

// The head of {"name": "f", "arguments": {: everything before the arguments' own brace.
enum class HeadState { kIncomplete, kFound, kOther };
struct CallHead {
  HeadState state = HeadState::kIncomplete;
  std::string name;
  size_t bytes = 0;  // of the head, without the arguments' brace
};
CallHead ReadCallHead(absl::string_view text);

// The whole object in any order of its fields; false if it is no call. Arguments may also be a
// string of JSON.
bool ReadWholeCall(absl::string_view object, std::string* name, std::string* arguments);

// `value` as JSON: as it is where it is JSON and no string is expected, else as a string.
std::string ArgumentJson(absl::string_view value, bool is_string);
std::string QuotedJson(absl::string_view text);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_CALL_JSON_H_
