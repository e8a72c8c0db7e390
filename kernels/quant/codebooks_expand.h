// ExpandCodebooks: the codebooks from their compact codes, by the compiler. For the units that keep
// a copy: codebooks.cc, and a GPU's kernels.
#ifndef DOVETAIL_KERNELS_QUANT_CODEBOOKS_EXPAND_H_
#define DOVETAIL_KERNELS_QUANT_CODEBOOKS_EXPAND_H_

#include <cstdint>

#include "kernels/quant/codebooks.h"

namespace dovetail::kernels {
namespace codebook_codes {

#include "kernels/quant/codebooks.inc"

constexpr int8_t kIq1Values[4] = {0, 8, 16, 0};
constexpr int8_t kIq2Values[4] = {8, 25, 43, 0};
constexpr int8_t kIq3XxsValues[8] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr int8_t kIq3SValues[8] = {1, 3, 5, 7, 9, 11, 13, 15};

// Code field j, lowest bits first, is element j of the entry.
template <int kEntries, int kElements, int kValues>
constexpr void Expand(const uint16_t (&codes)[kEntries], const int8_t (&values)[kValues],
                      int8_t (&grid)[kEntries][kElements]) {
  constexpr int kBits = kValues == 4 ? 2 : 3;
  for (int i = 0; i < kEntries; ++i) {
    for (int j = 0; j < kElements; ++j) {
      grid[i][j] = values[codes[i] >> (kBits * j) & (kValues - 1)];
    }
  }
}

}  // namespace codebook_codes

constexpr Codebooks ExpandCodebooks() {
  using namespace codebook_codes;  // NOLINT
  Codebooks books = {};
  Expand(kIq1Codes, kIq1Values, books.iq1);
  Expand(kIq2XxsCodes, kIq2Values, books.iq2_xxs);
  Expand(kIq2XsCodes, kIq2Values, books.iq2_xs);
  Expand(kIq2SCodes, kIq2Values, books.iq2_s);
  Expand(kIq3XxsCodes, kIq3XxsValues, books.iq3_xxs);
  Expand(kIq3SCodes, kIq3SValues, books.iq3_s);
  return books;
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_CODEBOOKS_EXPAND_H_
