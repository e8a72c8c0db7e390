// JsonReader: typed reads of the fields of a JSON object that a client sent; each returns the error
// that names the field, or nothing. Absent and null leave `out` as it is. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_JSON_READER_H_
#define DOVETAIL_COORDINATOR_HTTP_JSON_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/http/api_error.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::coordinator {

using MaybeError = std::optional<ApiError>;

// Parses `text`; refuses what nests deeper than `max_depth` before it reaches the parser.
MaybeError ParseJson(absl::string_view text, int max_depth, nlohmann::json* out);

// The member `name`, or nullptr where it is absent or null.
const nlohmann::json* FindMember(const nlohmann::json& object, absl::string_view name);

// "`name` must be a number, not a string".
ApiError WrongType(absl::string_view name, absl::string_view expected, const nlohmann::json& value);

MaybeError ReadBool(const nlohmann::json& object, absl::string_view name, bool* out);
MaybeError ReadString(const nlohmann::json& object, absl::string_view name, std::string* out);
MaybeError ReadFloat(const nlohmann::json& object, absl::string_view name,
                     std::optional<float>* out);
MaybeError ReadInt(const nlohmann::json& object, absl::string_view name,
                   std::optional<int64_t>* out);
// Any 64 bits: negative seeds are as good as others.
MaybeError ReadSeed(const nlohmann::json& object, absl::string_view name,
                    std::optional<uint64_t>* out);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_JSON_READER_H_
