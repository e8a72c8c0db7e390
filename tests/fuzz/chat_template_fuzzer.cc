// Any bytes as a chat template, rendered with a small conversation under tight limits.
#include <cstddef>
#include <cstdint>

#include "model/chat_template/chat_template.h"
#include "nlohmann/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const context = new nlohmann::ordered_json(nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "é"},
          {"role": "assistant", "content": null, "tool_calls": [{"id": "x", "type": "function",
           "function": {"name": "f", "arguments": {"a": [1, 2.5, null, true]}}}]}],
          "tools": [{"type": "function", "function": {"name": "f", "description": "d",
           "parameters": {"type": "object", "properties": {"a": {"type": "array"}}}}}],
          "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})"));
  dovetail::model::TemplateLimits limits;
  limits.max_steps = 100'000;
  limits.max_output_bytes = 1 << 20;
  limits.max_memory_bytes = 16 << 20;
  const auto chat_template = dovetail::model::ChatTemplate::Parse(
      absl::string_view(reinterpret_cast<const char*>(data), size), limits);
  if (chat_template.ok()) (void)(*chat_template)->Render(*context, 0);
  return 0;
}
