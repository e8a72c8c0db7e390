// ChatFormat: from the messages of a chat to the model's prompt, and what its answer will look
// like.
//
// Renders the chat template, knows the dialect in which the model calls tools, and makes the
// grammar of an answer that must call one or have a format. A template that knows no tools gets
// them in a system message, in the way of Hermes. Immutable; thread-safe.
#ifndef DOVETAIL_COORDINATOR_CHAT_CHAT_FORMAT_H_
#define DOVETAIL_COORDINATOR_CHAT_CHAT_FORMAT_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/chat/answer_parser.h"
#include "coordinator/chat/chat_dialect.h"
#include "coordinator/generation_request.h"
#include "coordinator/grammar/grammar_service.h"
#include "model/chat_template/chat_template.h"

namespace dovetail::coordinator {

struct ChatFormatOptions {
  std::string source;                     // of the template
  std::string tool_parser = "auto";       // a dialect's name, "auto" or "none"
  std::string reasoning_parser = "auto";  // "auto", "think" or "none"
  std::string bos_text, eos_text;
};

struct PreparedChat {
  std::string prompt;
  bool has_parser = false;  // else the answer is text
  ParserOptions parser;
  std::optional<GrammarSpec> grammar;
};

class ChatFormat {
 public:
  // `chat_template` is `options.source` parsed; it must outlive this. InvalidArgument: no such
  // parser.
  static absl::StatusOr<std::unique_ptr<ChatFormat>> Create(
      const model::ChatTemplate* chat_template, const ChatFormatOptions& options);

  // InvalidArgument: what the template refuses, what a tool lacks.
  absl::StatusOr<PreparedChat> Prepare(const std::vector<ChatMessage>& messages,
                                       const ChatOptions& options,
                                       const std::optional<GrammarSpec>& format) const;

  const ChatDialect* dialect() const { return dialect_; }
  bool thinks() const { return thinks_; }

 private:
  ChatFormat(const model::ChatTemplate* chat_template, const ChatFormatOptions& options)
      : template_(chat_template), options_(options) {}
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options, bool with_tools) const;
  void FindOutHowCallsAreWritten();
  nlohmann::ordered_json MessageJson(const ChatMessage& message) const;

  const model::ChatTemplate* const template_;
  const ChatFormatOptions options_;
  const ChatDialect* dialect_ = nullptr;  // null: calls are not looked for
  bool template_has_tools_ = false;
  bool object_arguments_ = true;  // the template wants arguments as an object, not as its text
  bool null_content_ = false;     // and null beside calls, not ""
  bool thinks_ = false;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CHAT_CHAT_FORMAT_H_
