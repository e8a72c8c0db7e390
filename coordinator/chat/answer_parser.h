// AnswerParser: takes the text of a chat's answer apart into thoughts, text and calls of tools,
// while it grows.
//
// The pieces that come out, added up, depend on the text alone and not on where it was cut into
// pieces. What is not certain yet is held back: a beginning of a mark, spaces before a mark. Text
// that only looks like a call stays text. One per choice, one thread.
#ifndef DOVETAIL_COORDINATOR_CHAT_ANSWER_PARSER_H_
#define DOVETAIL_COORDINATOR_CHAT_ANSWER_PARSER_H_

#include <functional>
#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/chat/call_json.h"
#include "coordinator/chat/chat_dialect.h"
#include "coordinator/generation_request.h"

namespace dovetail::coordinator {

struct ParserOptions {
  const ChatDialect* dialect = nullptr;  // null: calls are not looked for
  bool thinks = false;                   // the answer may begin with <think>
  bool starts_in_thought = false;        // the prompt ended with <think>
  // Which arguments of which tool are strings; XML arguments of others are read as JSON.
  std::map<std::string, std::map<std::string, bool>> string_arguments;
  std::function<std::string()> new_id;  // "call_..."
};

class AnswerParser {
 public:
  explicit AnswerParser(ParserOptions options);

  AnswerDelta Push(absl::string_view text);
  AnswerDelta Finish();  // the text has ended

  bool in_thought() const { return state_ == State::kThought || harmony_thought_; }
  int num_calls() const { return num_calls_; }

 private:
  enum class State {
    kStart,    // nothing but spaces has come
    kThought,  // between <think> and </think>
    kText,
    kSection,       // between calls
    kName,          // of a call, up to its arguments
    kHead,          // of a call that is one JSON object
    kWhole,         // a call whose head is in no usual order: until it is whole
    kArguments,     // JSON that is passed on
    kXmlArguments,  // between arguments
    kTail,          // from the arguments to the end of the call
    kHarmonyHead,   // of a channel's message
    kHarmonyBody,
  };

  bool Step(AnswerDelta* out);  // false: more text is needed
  bool StepStart();
  bool StepThought(AnswerDelta* out);
  bool StepText(AnswerDelta* out);
  bool StepSection();
  bool StepName(AnswerDelta* out);
  bool StepHead(AnswerDelta* out);
  bool StepWhole(AnswerDelta* out);
  bool StepArguments(AnswerDelta* out);
  bool StepXmlArguments(AnswerDelta* out);
  bool StepTail();
  bool StepHarmonyHead(AnswerDelta* out);
  bool StepHarmonyBody(AnswerDelta* out);

  void BeginCall();  // after its mark
  void StartCall(const std::string& name, AnswerDelta* out);
  void AddArguments(absl::string_view text, AnswerDelta* out) const;
  void EndCall();
  // Text after which more may follow: up to what may be the beginning of a mark, without spaces at
  // the end.
  size_t CertainBytes(std::initializer_list<absl::string_view> marks) const;
  void TrimFront();
  std::string Take(size_t bytes);

  const ParserOptions options_;
  const ChatDialect& dialect_;
  State state_ = State::kStart;
  std::string buffer_;
  bool trims_ = false;      // spaces that come next are dropped
  bool finishing_ = false;  // no more text will come
  int num_calls_ = 0;
  std::string name_;          // of the call
  size_t num_arguments_ = 0;  // of an XML call
  ObjectScanner scanner_;
  bool harmony_thought_ = false;
  bool harmony_call_ = false;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_ANSWER_PARSER_H_
