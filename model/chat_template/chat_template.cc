#include "model/chat_template/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/ast.h"
#include "model/chat_template/context.h"
#include "model/chat_template/interpreter.h"
#include "model/chat_template/parser.h"
#include "model/chat_template/runtime.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model {

struct ChatTemplate::Impl {
  std::string source;
  TemplateLimits limits;
  jinja::TemplateTree tree;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::~ChatTemplate() = default;

const std::string& ChatTemplate::source() const { return impl_->source; }

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(absl::string_view source,
                                                                  const TemplateLimits& limits) {
  if (static_cast<int64_t>(source.size()) > limits.max_source_bytes) {
    return jinja::ErrorAt({}, absl::StrCat("the template has ", source.size(), " bytes, at most ",
                                           limits.max_source_bytes, " are read"));
  }
  if (const size_t at = FindInvalidUtf8(source); at != absl::string_view::npos) {
    return jinja::ErrorAt({}, absl::StrCat("the template is not valid UTF-8 at byte ", at));
  }
  std::unique_ptr<ChatTemplate> result(new ChatTemplate);
  result->impl_->source = std::string(source);
  result->impl_->limits = limits;
  DT_ASSIGN_OR_RETURN(result->impl_->tree, jinja::ParseTemplate(source, limits.max_depth));
  return result;
}

absl::StatusOr<std::string> ChatTemplate::Render(const nlohmann::ordered_json& context,
                                                 std::time_t now) const {
  jinja::Runtime runtime(impl_->limits, now);
  DT_ASSIGN_OR_RETURN(std::vector<jinja::Value> values,
                      jinja::MakeContext(context, impl_->tree.names, &runtime));
  std::string text;
  DT_RETURN_IF_ERROR(jinja::Interpreter(impl_->tree, std::move(values), &runtime).Run(&text));
  return text;
}

}  // namespace dovetail::model
