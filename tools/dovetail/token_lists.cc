#include "tools/dovetail/token_lists.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::tools {

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in.good()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadTokenLists(const std::string& path) {
  DT_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array() || json.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": must be a JSON list of lists of token ids, [[1, 2], [3]]"));
  }
  std::vector<std::vector<int32_t>> lists;
  for (size_t i = 0; i < json.size(); ++i) {
    const nlohmann::json& list = json[i];
    if (!list.is_array() || list.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": list ", i, " is not a list of at least one token id"));
    }
    std::vector<int32_t>& ids = lists.emplace_back();
    for (size_t j = 0; j < list.size(); ++j) {
      const bool fits = list[j].is_number_integer() && list[j].get<int64_t>() >= 0 &&
                        list[j].get<int64_t>() <= std::numeric_limits<int32_t>::max();
      if (!fits) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": list ", i, ", index ", j, ": not a token id"));
      }
      ids.push_back(list[j].get<int32_t>());
    }
  }
  return lists;
}

}  // namespace dovetail::tools
