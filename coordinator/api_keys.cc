#include "coordinator/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMinKeyBytes = 8;
constexpr size_t kMaxKeyBytes = 512;

bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
}

bool IsKeyChar(char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); }

}  // namespace

ApiKeys::ApiKeys(const std::map<std::string, std::string>& keys) {
  for (const auto& [name, key] : keys) entries_.push_back({name, HashOf(key)});
}

ApiKeys::Hash ApiKeys::HashOf(absl::string_view key) {
  Hash hash;
  unsigned int size = 0;
  DT_CHECK(EVP_Digest(key.data(), key.size(), hash.data(), &size, EVP_sha256(), nullptr) == 1);
  DT_CHECK_EQ(size, hash.size());
  return hash;
}

std::optional<std::string> ApiKeys::Find(absl::string_view offered) const {
  if (entries_.empty()) return "";
  const Hash hash = HashOf(offered.substr(0, kMaxKeyBytes + 1));
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {  // all of them, whichever it is
    if (CRYPTO_memcmp(hash.data(), entry.hash.data(), hash.size()) == 0) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->name;
}

absl::Status CheckApiKey(absl::string_view name, absl::string_view key) {
  if (name.empty() || name.size() > kMaxNameBytes ||
      !std::all_of(name.begin(), name.end(), IsNameChar)) {
    return absl::InvalidArgumentError(absl::StrCat("a key's name must be 1 to ", kMaxNameBytes,
                                                   " letters, digits, `-`, `_` or `.`, got `",
                                                   name.substr(0, 80), "`"));
  }
  // The key itself is not repeated: messages end up in logs.
  if (key.size() < kMinKeyBytes || key.size() > kMaxKeyBytes ||
      !std::all_of(key.begin(), key.end(), IsKeyChar)) {
    return absl::InvalidArgumentError(absl::StrCat("the key of ", name, " must be ", kMinKeyBytes,
                                                   " to ", kMaxKeyBytes,
                                                   " visible ASCII characters"));
  }
  return absl::OkStatus();
}

absl::Status AddApiKey(const std::string& name, const std::string& key,
                       std::map<std::string, std::string>* keys) {
  if (absl::Status s = CheckApiKey(name, key); !s.ok()) return s;
  for (const auto& [other, other_key] : *keys) {
    if (other == name) return absl::InvalidArgumentError(absl::StrCat(name, " has two keys"));
    if (other_key == key) {
      return absl::InvalidArgumentError(absl::StrCat(other, " and ", name, " have the same key"));
    }
  }
  keys->emplace(name, key);
  return absl::OkStatus();
}

absl::string_view BearerToken(absl::string_view authorization) {
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return "";
  return absl::StripAsciiWhitespace(authorization.substr(kScheme.size()));
}

}  // namespace dovetail::coordinator
