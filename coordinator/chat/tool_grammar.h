// The structural tag (xgrammar's description of texts with tagged parts) of an answer: thoughts
// first, then calls of tools as a dialect writes them, or a format that the client asked for. Pure
// functions.
#ifndef DOVETAIL_COORDINATOR_CHAT_TOOL_GRAMMAR_H_
#define DOVETAIL_COORDINATOR_CHAT_TOOL_GRAMMAR_H_

#include <string>
#include <vector>

#include "coordinator/chat/chat_dialect.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {

struct ToolFunction {
  std::string name;
  nlohmann::ordered_json parameters;  // a JSON schema; null: any object
};

struct ToolGrammarOptions {
  const ChatDialect* dialect = nullptr;
  std::vector<ToolFunction> functions;  // those that may be called, at least one
  bool required = false;                // at least one call; else text may come as well
  bool parallel = true;                 // more than one call
};

enum class Thoughts { kNone, kMayBegin, kOpen };

// The format of the calls. null: the dialect cannot be described (kNone).
nlohmann::ordered_json CallsFormat(const ToolGrammarOptions& options);

// A whole structural tag: `format` after thoughts that the prompt has opened or that may come.
std::string StructuralTag(nlohmann::ordered_json format, Thoughts thoughts);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_TOOL_GRAMMAR_H_
