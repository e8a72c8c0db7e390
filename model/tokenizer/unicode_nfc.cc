#include "model/tokenizer/unicode_nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace dovetail::model {
namespace {

constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

utf8proc_propval_t CombiningClass(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// The characters of `text`, each decomposed.
std::vector<utf8proc_int32_t> Decompose(absl::string_view text) {
  constexpr int kLongest = 8;  // the longest canonical decomposition is four characters
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size() + 1);
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t c = 0, parts[kLongest];
    const auto left = static_cast<utf8proc_ssize_t>(text.size() - at);
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, left, &c);
    DT_CHECK(length > 0);
    const utf8proc_ssize_t count = utf8proc_decompose_char(c, parts, kLongest, kOptions, nullptr);
    DT_CHECK(count >= 0 && count <= kLongest);
    characters.insert(characters.end(), parts, parts + count);
    at += static_cast<size_t>(length);
  }
  return characters;
}

// Canonical order: runs of combining characters by their class, otherwise as they are. The
// library's own ordering takes quadratic time on long runs.
void OrderMarks(std::vector<utf8proc_int32_t>* characters) {
  const auto combines = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
  for (auto begin = characters->begin(); begin != characters->end();) {
    begin = std::find_if(begin, characters->end(), combines);
    const auto end = std::find_if_not(begin, characters->end(), combines);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

}  // namespace

bool MayNeedNfc(absl::string_view text) {
  constexpr uint8_t kLeadOfU0300 = 0xcc;
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) >= kLeadOfU0300; });
}

std::string ComposeNfc(absl::string_view text) {
  std::vector<utf8proc_int32_t> characters = Decompose(text);
  OrderMarks(&characters);
  const auto count = static_cast<utf8proc_ssize_t>(characters.size());
  characters.push_back(0);  // where the library writes its final zero
  const utf8proc_ssize_t size = utf8proc_reencode(characters.data(), count, kOptions);
  DT_CHECK(size >= 0);
  return std::string(reinterpret_cast<const char*>(characters.data()), static_cast<size_t>(size));
}

}  // namespace dovetail::model
