// Unpack of the weight types with codebooks: 16 rows look up their grid entries with one gather per
// 4 elements (the tables fit the first-level cache), then signs or deltas are applied to 64 bytes
// at once. Included once, inside the instruction set's namespace, after unpack.inl.h.

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

// Four groups of 8 elements; kHighBits more bits of each index.
template <typename P16, int kChunk, int kHighBits>
static inline void UnpackGroupsOf8(const uint8_t* block, const int8_t (*grid)[8], B* w) {
  const B signs = LoadB(block + P16::kSigns + 64 * kChunk);
  I high = ZeroI();
  if constexpr (kHighBits > 0) high = LoadU8(block + P16::kHigh + 16 * (kChunk * kHighBits / 2));
  ForFour([&](auto group) {
    constexpr int kGroup = decltype(group)::kValue;
    I index = LoadU8(block + P16::kIndex + 16 * (4 * kChunk + kGroup));
    if constexpr (kHighBits > 0) {
      constexpr int kShift = (4 * kHighBits * kChunk) % 8 + kHighBits * kGroup;
      const I bits = AndI(ShiftRightI<kShift>(high), SetI1((1 << kHighBits) - 1));
      index = AddI(index, ShiftLeftI<8>(bits));
    }
    w[2 * kGroup] = WithSigns(Gather<8>(grid[0], index), signs, 2 * kGroup);
    w[2 * kGroup + 1] = WithSigns(Gather<8>(grid[0] + 4, index), signs, 2 * kGroup + 1);
  });
}

// Eight groups of 4 elements.
template <typename P16, int kChunk, int kHighBits>
static inline void UnpackGroupsOf4(const uint8_t* block, const int8_t (*grid)[4], B* w) {
  const B signs = LoadB(block + P16::kSigns + 64 * kChunk);
  I high = ZeroI();
  if constexpr (kHighBits > 0) high = LoadU8(block + P16::kHigh + 16 * kChunk);
  const auto group_of_4 = [&](auto group) {
    constexpr int kGroup = decltype(group)::kValue;
    I index = LoadU8(block + P16::kIndex + 16 * (8 * kChunk + kGroup));
    if constexpr (kHighBits > 0) {
      index = AddI(index, AndI(ShiftLeftI<8 - kGroup>(high), SetI1(256)));
    }
    w[kGroup] = WithSigns(Gather<4>(grid[0], index), signs, kGroup);
  };
  ForFour([&](auto group) {
    group_of_4(Constant<2 * decltype(group)::kValue>());
    group_of_4(Constant<2 * decltype(group)::kValue + 1>());
  });
}

struct FormatIQ2_XXS : NibbleScaled<P16IQ2_XXS, 8> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 0>(block, kCodebooks.iq2_xxs, w);
  }
};

struct FormatIQ2_XS : NibbleScaled<P16IQ2_XS, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 1>(block, kCodebooks.iq2_xs, w);
  }
};

struct FormatIQ2_S : NibbleScaled<P16IQ2_S, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf8<P16, kChunk, 2>(block, kCodebooks.iq2_s, w);
  }
};

struct FormatIQ3_XXS : NibbleScaled<P16IQ3_XXS, 4> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf4<P16, kChunk, 0>(block, kCodebooks.iq3_xxs, w);
  }
};

struct FormatIQ3_S : NibbleScaled<P16IQ3_S, 1> {
  static constexpr int kSubBlock = 32, kMaxWeight = 127, kOffset = kIqOffset;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackGroupsOf4<P16, kChunk, 1>(block, kCodebooks.iq3_s, w);
  }
};

// The grid has 8 (value + 1): bits 3 and 4. Plus 2, or plus 0 for a negative delta, that is
// 8 value + delta + 9, at most 18.
template <typename P16, int kChunk>
static inline void UnpackIq1(const uint8_t* block, B* w) {
  ForFour([&](auto group) {
    constexpr int kGroup = decltype(group)::kValue;
    const I index = LoadU8(block + P16::kIndex + 16 * (4 * kChunk + kGroup));
    const I two = LoadU8(block + P16::kHigh + 16 * (2 * kChunk + kGroup / 2));
    const I high = kGroup % 2 == 0 ? two : ShiftRightI<4>(two);
    const I entry = AddI(index, ShiftLeftI<8>(AndI(high, SetI1(7))));
    const I plus = MulI(SubI(SetI1(8), AndI(high, SetI1(8))), SetI1(0x01010101));
    const B delta = Bits<2, 2>(plus);  // bytes of 2 or 0
    w[2 * kGroup] = OrB(Gather<8>(kCodebooks.iq1[0], entry), delta);
    w[2 * kGroup + 1] = OrB(Gather<8>(kCodebooks.iq1[0] + 4, entry), delta);
  });
}

struct FormatIQ1_S : NibbleScaled<P16IQ1_S, 8> {
  static constexpr int kSubBlock = 32, kMaxWeight = 31, kOffset = 9, kMaxScale = 31;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackIq1<P16, kChunk>(block, w);
  }
};

struct FormatIQ1_M : NibbleScaled<P16IQ1_M, 8> {
  static constexpr int kSubBlock = 16, kMaxWeight = 31, kOffset = 9, kMaxScale = 31;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackIq1<P16, kChunk>(block, w);
  }
};
