#include "coordinator/model_directory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace dovetail::coordinator {

absl::StatusOr<const ModelEntry*> ModelDirectory::Find(absl::string_view name) const {
  if (name.empty() && models_.size() == 1) return &models_[0];
  if (name.empty() && has_several()) {
    return absl::InvalidArgumentError(
        absl::StrCat("`model` is required: this server has ",
                     absl::StrJoin(models_, ", ", [](std::string* out, const ModelEntry& model) {
                       absl::StrAppend(out, "`", model.name, "`");
                     })));
  }
  for (const ModelEntry& model : models_) {
    const bool is_alias =
        std::find(model.aliases.begin(), model.aliases.end(), name) != model.aliases.end();
    if (model.name == name || is_alias) return &model;
  }
  return absl::NotFoundError(absl::StrCat("The model `", name, "` does not exist"));
}

}  // namespace dovetail::coordinator
