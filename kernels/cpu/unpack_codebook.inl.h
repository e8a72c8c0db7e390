// Unpack of the weight types with codebooks. Entries are looked up without gathers, which take
// longer than a load for each lane but on some processors: by permuting words in registers, where
// the instruction set can (kPermutedEntries), else by loads (the tables fit the first-level cache).
// Then signs or deltas are applied to 64 bytes at once. Included once, inside the instruction set's
// namespace, after unpack.inl.h.
//
// Four groups of elements are looked up at a time: their indices are 64 bytes, [4 groups][16 rows],
// and as many bytes with higher bits.

template <int kN>
struct Constant {
  static constexpr int kValue = kN;
};

// fn(Constant<0>()) .. fn(Constant<3>()).
template <typename Fn>
static inline void ForFour(const Fn& fn) {
  fn(Constant<0>());
  fn(Constant<1>());
  fn(Constant<2>());
  fn(Constant<3>());
}

// Scales 2 s + 1 with s in a nibble, two to a byte.
template <typename Layout, int kDivisor>
struct NibbleScaled : HalfScaled<Layout, kDivisor> {
  static constexpr int kBlock = 256;
  static constexpr bool kHasMin = false;
  static inline I Scale(const uint8_t* block, int sub_block) {
    const I both = LoadU8(block + Layout::kScales + 16 * (sub_block / 2));
    const I s = sub_block % 2 == 0 ? AndI(both, SetI1(15)) : ShiftRightI<4>(both);
    return AddI(AddI(s, s), SetI1(1));
  }
};

constexpr int kIqOffset = 64;  // over -62 .. 62

// Magnitudes of 4 consecutive k with the signs of group `group` of the chunk, plus kIqOffset.
static inline B WithSigns(B magnitudes, B signs, int group) {
  return OffsetBySign(magnitudes, BitsAsBytes(signs, group), kIqOffset);
}

// --- look-ups by loads

// Indices of 16 rows. Words, which have just been stored, are read four at a time: fewer loads wait
// for the store.
struct Indices {
  uint32_t of_row[16];
};
[[gnu::always_inline]] static inline Indices LoadIndices(const uint8_t* from) {
  Indices indices;
  DT_UNROLL for (int row = 0; row < 16; ++row) indices.of_row[row] = from[row];
  return indices;
}
[[gnu::always_inline]] static inline Indices LoadIndices(const uint16_t* from) {
  Indices indices;
  DT_UNROLL for (int i = 0; i < 4; ++i) {
    uint64_t four;
    __builtin_memcpy(&four, from + 4 * i, sizeof(four));
    DT_UNROLL for (int j = 0; j < 4; ++j) {
      indices.of_row[4 * i + j] = static_cast<uint16_t>(four >> (16 * j));
    }
  }
  return indices;
}

template <typename T>
static inline T EntryAs(const int8_t* entry) {
  T v;
  __builtin_memcpy(&v, entry, sizeof(v));
  return v;
}
// Entries at[0], at[1], at[4] and at[5].
[[gnu::always_inline]] static inline __m256i FourEntries(const int8_t (*grid)[8],
                                                         const uint32_t* at) {
  const auto two = [&](int i) __attribute__((always_inline)) {
    return _mm_set_epi64x(EntryAs<int64_t>(grid[at[i + 1]]), EntryAs<int64_t>(grid[at[i]]));
  };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(two(0)), two(4), 1);
}
// Entries at[0] to at[7].
[[gnu::always_inline]] static inline __m256i EightEntries(const int8_t (*grid)[4],
                                                          const uint32_t* at) {
  const auto one = [&](int i) __attribute__((always_inline)) {
    return EntryAs<int32_t>(grid[at[i]]);
  };
  return _mm256_set_epi32(one(7), one(6), one(5), one(4), one(3), one(2), one(1), one(0));
}
// The first (kHalf 0) or last 4 elements of the entries of 8 rows: x has rows 0, 1, 4 and 5.
template <int kHalf>
static inline __m256i HalvesOfEntries(__m256i x, __m256i y) {
  return _mm256_castps_si256(
      _mm256_shuffle_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(y), kHalf == 0 ? 0x88 : 0xdd));
}

// w[2 g] and w[2 g + 1]: elements 0..3 and 4..7 of the entries of group g. Not inlined: a block
// would repeat it eight times.
template <typename Index>
[[gnu::noinline]] static void LoadEntries(const int8_t (*grid)[8], const Index* index, B* w) {
  for (int g = 0; g < 4; ++g) {
    const Indices at = LoadIndices(index + 16 * g);
    const __m256i a = FourEntries(grid, at.of_row), b = FourEntries(grid, at.of_row + 2);
    const __m256i c = FourEntries(grid, at.of_row + 8), d = FourEntries(grid, at.of_row + 10);
    w[2 * g] = JoinHalves(HalvesOfEntries<0>(a, b), HalvesOfEntries<0>(c, d));
    w[2 * g + 1] = JoinHalves(HalvesOfEntries<1>(a, b), HalvesOfEntries<1>(c, d));
  }
}
// w[g]: elements 0..3.
template <typename Index>
[[gnu::noinline]] static void LoadEntries(const int8_t (*grid)[4], const Index* index, B* w) {
  for (int g = 0; g < 4; ++g) {
    const Indices at = LoadIndices(index + 16 * g);
    w[g] = JoinHalves(EightEntries(grid, at.of_row), EightEntries(grid, at.of_row + 8));
  }
}

// --- look-ups either way

// kBits bits for each row of groups kFirst .. kFirst + 3, as bytes; `plane` has them in order.
template <int kBits, int kFirst>
static inline B BitsOfGroups(const uint8_t* plane) {
  if constexpr (kBits == 0) {
    return ZeroI();
  } else {
    constexpr int kBegin = kBits * kFirst, kMiddle = kBits * (kFirst + 2);
    const B bytes = LoadTwice(plane + 16 * (kBegin / 8), plane + 16 * (kMiddle / 8));
    return Bits<0, (1 << kBits) - 1>(
        ShiftQuartersRight<kBegin % 8, kBegin % 8 + kBits, kMiddle % 8, kMiddle % 8 + kBits>(
            bytes));
  }
}

template <int kEntries>
static inline void LoadOrGather(const int8_t (&grid)[kEntries][8], const uint16_t* index, B* w) {
  if constexpr (kEntries >= kGatheredEntries) {
    if (processor_gathers) return GatherFourGroups(grid, index, w);
  }
  LoadEntries(grid, index, w);
}

// Entries of four groups as LoadEntries writes them.
template <int kEntries, int kElements>
[[gnu::always_inline]] static inline void LookUpEntries(const int8_t (&grid)[kEntries][kElements],
                                                        const NibbleCodebook<kEntries>& nibbles,
                                                        const uint8_t* low, B high, B* w) {
  if constexpr (kElements == 8 && kEntries >= kGatheredEntries) {
    if (processor_gathers) {
      alignas(64) uint16_t index[64];
      StoreWords(index, LoadB(low), high);
      return GatherFourGroups(grid, index, w);
    }
  }
  if constexpr (kEntries <= kPermutedEntries) {
    constexpr int kVectors = kElements / 4;
    B codes[4];
    LookUpNibbles<kEntries>(nibbles.codes, LoadB(low), high, codes);
    DT_UNROLL for (int i = 0; i < 4 * kVectors; ++i) {
      w[i] = LookUpB(nibbles.values[i % kVectors], codes[i / kVectors]);
    }
  } else if constexpr (kEntries <= 256) {
    LoadEntries(grid, low, w);
  } else {
    alignas(64) uint16_t index[64];
    StoreWords(index, LoadB(low), high);
    LoadEntries(grid, index, w);
  }
}

// Four groups of 8 elements; kHighBits more bits of each index.
template <typename P16, int kChunk, int kHighBits, int kEntries>
[[gnu::always_inline]] static inline void UnpackGroupsOf8(const uint8_t* block,
                                                          const int8_t (&grid)[kEntries][8],
                                                          const NibbleCodebook<kEntries>& nibbles,
                                                          B* w) {
  const B high = BitsOfGroups<kHighBits, 4 * kChunk>(block + P16::kHigh);
  LookUpEntries(grid, nibbles, block + P16::kIndex + 64 * kChunk, high, w);
  const B signs = LoadB(block + P16::kSigns + 64 * kChunk);
  DT_UNROLL for (int i = 0; i < 8; ++i) w[i] = WithSigns(w[i], signs, i);
}

// Eight groups of 4 elements.
template <typename P16, int kChunk, int kHighBits, int kEntries>
[[gnu::always_inline]] static inline void UnpackGroupsOf4(const uint8_t* block,
                                                          const int8_t (&grid)[kEntries][4],
                                                          const NibbleCodebook<kEntries>& nibbles,
                                                          B* w) {
  const uint8_t* low = block + P16::kIndex + 128 * kChunk;
  const uint8_t* plane = block + P16::kHigh;
  LookUpEntries(grid, nibbles, low, BitsOfGroups<kHighBits, 8 * kChunk>(plane), w);
  LookUpEntries(grid, nibbles, low + 64, BitsOfGroups<kHighBits, 8 * kChunk + 4>(plane), w + 4);
  const B signs = LoadB(block + P16::kSigns + 64 * kChunk);
  DT_UNROLL for (int i = 0; i < 8; ++i) w[i] = WithSigns(w[i], signs, i);
}

// --- formats

struct FormatIQ2_XXS : NibbleScaled<P16IQ2_XXS, 8> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 0>(block, kCodebooks.iq2_xxs, kNibbleCodebooks.iq2_xxs, w);
  }
};

struct FormatIQ2_XS : NibbleScaled<P16IQ2_XS, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 1>(block, kCodebooks.iq2_xs, kNibbleCodebooks.iq2_xs, w);
  }
};

struct FormatIQ2_S : NibbleScaled<P16IQ2_S, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 2>(block, kCodebooks.iq2_s, kNibbleCodebooks.iq2_s, w);
  }
};

struct FormatIQ3_XXS : NibbleScaled<P16IQ3_XXS, 4> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf4<P16, kChunk, 0>(block, kCodebooks.iq3_xxs, kNibbleCodebooks.iq3_xxs, w);
  }
};

struct FormatIQ3_S : NibbleScaled<P16IQ3_S, 1> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf4<P16, kChunk, 1>(block, kCodebooks.iq3_s, kNibbleCodebooks.iq3_s, w);
  }
};

// The grid has 8 (value + 1): bits 3 and 4. Plus 2, or plus 0 for a negative delta, that is
// 8 value + delta + 9, at most 18.
template <typename P16, int kChunk>
[[gnu::always_inline]] static inline void UnpackIq1(const uint8_t* block, B* w) {
  const B high = BitsOfGroups<4, 4 * kChunk>(block + P16::kHigh);
  alignas(64) uint16_t index[64];
  StoreWords(index, LoadB(block + P16::kIndex + 64 * kChunk), Bits<0, 7>(high));
  LoadOrGather(kCodebooks.iq1, index, w);
  ForFour([&](auto group) {
    constexpr int kGroup = decltype(group)::kValue, kSign = kGroup % 2 == 0 ? 3 : 7;
    const uint8_t* two = block + P16::kHigh + 16 * (2 * kChunk + kGroup / 2);
    const B delta = LanesWhereClear<kSign>(two, 0x02020202);
    w[2 * kGroup] = OrB(w[2 * kGroup], delta);
    w[2 * kGroup + 1] = OrB(w[2 * kGroup + 1], delta);
  });
}

struct FormatIQ1_S : NibbleScaled<P16IQ1_S, 8> {
  static constexpr int kSubBlock = 32, kMaxWeight = 31, kOffset = 9;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackIq1<P16, kChunk>(block, w);
  }
};

struct FormatIQ1_M : NibbleScaled<P16IQ1_M, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 31, kOffset = 9;
  template <int kChunk>
  [[gnu::always_inline]] static inline void Unpack(const uint8_t* block, B* w) {
    UnpackIq1<P16, kChunk>(block, w);
  }
};
