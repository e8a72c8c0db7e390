// ChatDialect: how a model family writes its thoughts and its calls of tools. Constant tables and
// pure functions; thread-safe.
#ifndef DOVETAIL_COORDINATOR_CHAT_CHAT_DIALECT_H_
#define DOVETAIL_COORDINATOR_CHAT_CHAT_DIALECT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace dovetail::coordinator {

enum class CallStyle {
  kNone,       // no calls
  kNamedJson,  // {"name": ..., "arguments": {...}}, or "parameters"
  kPlainJson,  // the name, then the arguments as JSON
  kXml,        // the name, then each argument between marks
  kHarmony,    // channels: gpt-oss
};

struct ChatDialect {
  absl::string_view name;
  CallStyle style = CallStyle::kNone;
  // A section holds calls; "" where calls stand alone. A section without an end is ended by the
  // answer.
  absl::string_view section_begin, section_end;
  // "" with kNamedJson: the object stands by itself, at the beginning of the answer or section.
  absl::string_view call_begin, call_end;
  absl::string_view name_prefix, name_end;        // around the name
  absl::string_view name_close;                   // an older mark that ends a name as well
  absl::string_view key_begin, key_end;           // of an XML argument
  absl::string_view value_begin, value_end;       // after spaces; value_begin may be ""
  absl::string_view xml_style;                    // its name in xgrammar's structural tags
  absl::string_view arguments_key = "arguments";  // of kNamedJson
};

// The dialect called `name` ("hermes", ...), or nullptr.
const ChatDialect* FindDialect(absl::string_view name);
// The names, for messages: "hermes, llama3_json, ...".
std::string DialectNames();
// The dialect in which a chat template writes calls; nullptr if it writes none.
const ChatDialect* DetectDialect(absl::string_view chat_template);

// What stands around thoughts. Models of all families that write them use the same marks.
inline constexpr absl::string_view kThinkBegin = "<think>";
inline constexpr absl::string_view kThinkEnd = "</think>";
bool TemplateThinks(absl::string_view chat_template);

// Every mark of every dialect that may be a special token, which must then be seen as text.
std::vector<std::string> DialectMarkers();

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_CHAT_DIALECT_H_
