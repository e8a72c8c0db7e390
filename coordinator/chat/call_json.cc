#include "coordinator/chat/call_json.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxDepth = 64;

// No deeper than kMaxDepth, and no exception.
Json ParseBounded(absl::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\' ? 1 : 0;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return Json(Json::value_t::discarded);
    } else if (c == '}' || c == ']') {
      depth -= depth > 0 ? 1 : 0;
    }
  }
  return Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Walks over what a head must have, in its order.
class HeadReader {
 public:
  explicit HeadReader(absl::string_view text) : text_(text) {}

  bool Expect(absl::string_view token) {
    SkipSpace();
    const absl::string_view rest = text_.substr(at_);
    if (absl::StartsWith(rest, token)) {
      at_ += token.size();
      return true;
    }
    state_ = absl::StartsWith(token, rest) ? HeadState::kIncomplete : HeadState::kOther;
    return false;
  }
  bool ReadString(std::string* out) {
    if (!Expect("\"")) return false;
    const size_t begin = at_ - 1;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\\') {
        ++at_;
      } else if (text_[at_] == '"') {
        const Json value = ParseBounded(text_.substr(begin, ++at_ - begin));
        state_ = HeadState::kOther;
        if (!value.is_string()) return false;
        *out = value.get<std::string>();
        return true;
      }
    }
    state_ = HeadState::kIncomplete;
    return false;
  }
  void SkipSpace() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
  }
  HeadState state() const { return state_; }
  size_t at() const { return at_; }

 private:
  absl::string_view text_;
  size_t at_ = 0;
  HeadState state_ = HeadState::kIncomplete;
};

}  // namespace

size_t ObjectScanner::Scan(absl::string_view text) {
  for (size_t i = 0; i < text.size() && !done_; ++i) {
    const char c = text[i];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ <= 0) {
      done_ = true;
      return i + 1;
    }
  }
  return done_ ? 0 : text.size();
}

CallHead ReadCallHead(absl::string_view text) {
  CallHead head;
  HeadReader reader(text);
  std::string key;
  if (!reader.Expect("{") || !reader.Expect("\"name\"") || !reader.Expect(":") ||
      !reader.ReadString(&head.name) || !reader.Expect(",") || !reader.ReadString(&key)) {
    head.state = reader.state();
    return head;
  }
  if (key != "arguments" && key != "parameters") {
    head.state = HeadState::kOther;
    return head;
  }
  if (!reader.Expect(":") || !reader.Expect("{")) {
    head.state = reader.state();
    return head;
  }
  head.state = HeadState::kFound;
  head.bytes = reader.at() - 1;
  return head;
}

bool ReadWholeCall(absl::string_view object, std::string* name, std::string* arguments) {
  const Json json = ParseBounded(object);
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return false;
  *name = json["name"].get<std::string>();
  *arguments = "{}";
  for (const char* key : {"arguments", "parameters"}) {
    if (!json.contains(key)) continue;
    const Json& value = json[key];
    if (value.is_object()) {
      *arguments = Dump(value);
    } else if (value.is_string() && ParseBounded(value.get<std::string>()).is_object()) {
      *arguments = value.get<std::string>();
    } else if (!value.is_null()) {
      return false;
    }
  }
  return true;
}

std::string ArgumentJson(absl::string_view value, bool is_string) {
  if (!is_string) {
    const Json json = ParseBounded(value);
    if (!json.is_discarded()) return Dump(json);
  }
  return QuotedJson(value);
}

std::string QuotedJson(absl::string_view text) { return Dump(Json(std::string(text))); }

}  // namespace dovetail::coordinator
