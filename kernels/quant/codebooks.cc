#include "kernels/quant/codebooks.h"

#include "kernels/quant/codebooks_expand.h"

namespace dovetail::kernels {
namespace {

using namespace codebook_codes;  // NOLINT

// Of the codes of 8 elements a nibble has two, j and 4 + j; of those of 4 elements it has one.
template <int kEntries, int kValues>
constexpr NibbleCodebook<kEntries> AsNibbles(const uint16_t (&codes)[kEntries],
                                             const int8_t (&values)[kValues]) {
  NibbleCodebook<kEntries> book = {};
  for (int i = 0; i < kEntries; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int two = (codes[i] >> (2 * j) & 3) | (codes[i] >> (2 * j + 8) & 3) << 2;
      const int nibble = kValues == 4 ? two : codes[i] >> (3 * j) & 7;
      book.codes[i] = static_cast<uint16_t>(book.codes[i] | nibble << kNibbleAt[j]);
    }
  }
  for (int nibble = 0; nibble < 16; ++nibble) {
    book.values[0][nibble] = values[nibble % kValues];
    book.values[1][nibble] = values[nibble / 4];
  }
  return book;
}

}  // namespace

constinit const Codebooks kCodebooks = ExpandCodebooks();

constinit const NibbleCodebooks kNibbleCodebooks = {
    AsNibbles(kIq2XxsCodes, kIq2Values), AsNibbles(kIq2XsCodes, kIq2Values),
    AsNibbles(kIq2SCodes, kIq2Values),   AsNibbles(kIq3XxsCodes, kIq3XxsValues),
    AsNibbles(kIq3SCodes, kIq3SValues),
};

}  // namespace dovetail::kernels
