// The caller's JSON as template values.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_CONTEXT_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_CONTEXT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template/ast.h"
#include "model/chat_template/runtime.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::model::jinja {

// Values by NameId for the members of `context`, an object; what the template does not name is left
// out. InvalidArgument: nested too deeply, not UTF-8, too large.
absl::StatusOr<std::vector<Value>> MakeContext(const nlohmann::ordered_json& context,
                                               const NameTable& names, Runtime* runtime);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_CONTEXT_H_
