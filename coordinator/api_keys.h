// ApiKeys: who may use the server. A key has a name, the tenant; requests carry the name onwards,
// for fairness and logs, and never the key.
//
// Only hashes of the keys are kept, and every one is compared in constant time, so that neither a
// memory dump nor the time of an answer tells a key. Immutable; thread-safe.
#ifndef DOVETAIL_COORDINATOR_API_KEYS_H_
#define DOVETAIL_COORDINATOR_API_KEYS_H_

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace dovetail::coordinator {

class ApiKeys {
 public:
  // Without keys everybody may.
  ApiKeys() = default;
  // By name; each passed CheckApiKey.
  explicit ApiKeys(const std::map<std::string, std::string>& keys);

  bool required() const { return !entries_.empty(); }
  // The tenant's name ("" where no key is required), or nothing: refused.
  std::optional<std::string> Find(absl::string_view offered) const;

 private:
  using Hash = std::array<unsigned char, 32>;
  struct Entry {
    std::string name;
    Hash hash;
  };
  static Hash HashOf(absl::string_view key);
  std::vector<Entry> entries_;
};

// Names are 1 to 64 letters, digits, '-', '_' and '.'; keys 8 to 512 visible ASCII characters.
absl::Status CheckApiKey(absl::string_view name, absl::string_view key);

// Adds one that passes CheckApiKey and whose name and key are new.
absl::Status AddApiKey(const std::string& name, const std::string& key,
                       std::map<std::string, std::string>* keys);

// "Bearer KEY" -> "KEY", the scheme in any case; "" for anything else.
absl::string_view BearerToken(absl::string_view authorization);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_API_KEYS_H_
