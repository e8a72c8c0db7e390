// ChatTemplate: renders a list of messages with the Jinja template that a GGUF file carries,
// exactly as Hugging Face does (trim_blocks, lstrip_blocks, keep_trailing_newline off).
//
// Templates come from model files and are hostile: parse depth, steps, recursion, output bytes and
// memory are bounded by Limits. Parsed once; Render() is const and thread-safe.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_CHAT_TEMPLATE_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_CHAT_TEMPLATE_H_

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::model {

struct TemplateLimits {
  int64_t max_source_bytes = 1 << 20;
  int max_depth = 64;              // nesting of the source and of calls
  int64_t max_steps = 20'000'000;  // evaluated nodes
  int64_t max_output_bytes = 32 << 20;
  int64_t max_memory_bytes = 256 << 20;  // values alive at once while rendering
};

class ChatTemplate {
 public:
  // InvalidArgument: "chat template:LINE:COL: message".
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(absl::string_view source,
                                                             const TemplateLimits& limits = {});
  ~ChatTemplate();

  const std::string& source() const;

  // `context` is a JSON object with what the template may name: messages, add_generation_prompt,
  // bos_token, eos_token, tools, enable_thinking, ... Key order of objects is kept. Hugging Face
  // always gives `tools` and `documents`, null where there are none: templates ask whether they are
  // defined. InvalidArgument: "chat template:LINE:COL: message" (raise_exception, undefined used,
  // limits). `now` is what strftime_now shows, in local time.
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& context,
                                     std::time_t now = std::time(nullptr)) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_CHAT_TEMPLATE_H_
