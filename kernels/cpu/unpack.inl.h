// What is particular to a weight type in P16: how 32 consecutive k (16 of NVFP4) of a panel become
// byte vectors. Everything else is shared (matmul_quant.inl.h). Included once, inside the
// instruction set's namespace; the types with codebooks are in unpack_codebook.inl.h.
//
// A format states its P16 layout, elements per block and per sub-scale, the largest byte that
// Unpack gives (above 127: see FromSigned; rounded up where AVX2 wants a power of two of pair
// sums), the offset that those bytes carry over the true q, and has_min.
// Unpack<kChunk> writes chunk kChunk (32 k) of the panel block: w[i] holds k = 4i .. 4i + 3. Blocks
// of 256 have Scale of a sub-block and, if minimums, MinPair: those of sub-blocks 2 pair and
// 2 pair + 1, the int16 halves of a lane. ScaleTwice, if there, gives both halves the scale.

static inline F LoadHalves(const uint8_t* p) {
  return LoadF16(reinterpret_cast<const uint16_t*>(p));
}

// Formats whose d is a half, times a power of two.
template <typename Layout, int kDivisor = 1>
struct HalfScaled {
  using P16 = Layout;
  static inline F D(const uint8_t* block) {
    const F d = LoadHalves(block + P16::kD);
    if constexpr (kDivisor == 1) return d;
    return Mul(d, Set1(1.0f / kDivisor));
  }
};

// Four dwords: groups i and i + 4 (of 4 k) are the nibbles of dword i.
static inline void UnpackNibbles(const uint8_t* quants, B* w) {
  for (int i = 0; i < 4; ++i) {
    const B v = LoadB(quants + 64 * i);
    w[i] = Bits<0, 15>(v);
    w[i + 4] = Bits<4, 15>(v);
  }
}

// Four-bit indices of a table of bytes.
static inline void LookUp(const int8_t* table, int count, B* w) {
  for (int i = 0; i < count; ++i) w[i] = LookUpB(table, w[i]);
}

// Tables carry their format's offset.
struct ValueTable {
  alignas(16) int8_t values[16];
  constexpr ValueTable(const int8_t (&from)[16], int offset) : values() {
    for (int i = 0; i < 16; ++i) values[i] = static_cast<int8_t>(from[i] + offset);
  }
};
constexpr int kFp4Offset = 12;
static constexpr ValueTable kIq4Table(kIq4Values, kSignedOffset);
static constexpr ValueTable kFp4Table(kFp4Values, kFp4Offset);

// --- blocks of 32 and 16

struct FormatQ4_0 : HalfScaled<P16Q4_0> {
  static constexpr int kBlock = 32, kMaxWeight = 15, kOffset = 8;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(block + P16::kQuants, w);
  }
};

struct FormatQ4_1 : HalfScaled<P16Q4_1> {
  static constexpr int kBlock = 32, kMaxWeight = 15, kOffset = 0;
  static constexpr bool kHasMin = true;
  // y = d q + m; the canonical minimum is -m (kernels/quant/format.h).
  static constexpr float kMinSign = 1.0f;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(block + P16::kQuants, w);
  }
};

template <typename P16>
static inline void UnpackFiveBitsOf32(const uint8_t* block, B* w) {
  UnpackNibbles(block + P16::kQuants, w);
  const B bits = LoadB(block + P16::kHigh);
  for (int i = 0; i < 8; ++i) w[i] = AddWhere(w[i], BitsAsBytes(bits, i), 16);
}

struct FormatQ5_0 : HalfScaled<P16Q5_0> {
  static constexpr int kBlock = 32, kMaxWeight = 31, kOffset = 16;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackFiveBitsOf32<P16>(block, w);
  }
};

struct FormatQ5_1 : HalfScaled<P16Q5_1> {
  static constexpr int kBlock = 32, kMaxWeight = 31, kOffset = 0;
  static constexpr bool kHasMin = true;
  static constexpr float kMinSign = 1.0f;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackFiveBitsOf32<P16>(block, w);
  }
};

struct FormatQ8_0 : HalfScaled<P16Q8_0> {
  static constexpr int kBlock = 32, kMaxWeight = 255, kOffset = kSignedOffset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    for (int i = 0; i < 8; ++i) w[i] = FromSigned(LoadB(block + P16::kQuants + 64 * i));
  }
};

struct FormatIQ4_NL : HalfScaled<P16Q4_0> {
  static constexpr int kBlock = 32, kMaxWeight = 255, kOffset = kSignedOffset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(block + P16::kQuants, w);
    LookUp(kIq4Table.values, 8, w);
  }
};

struct FormatMXFP4 {
  using P16 = P16MXFP4;
  static constexpr int kBlock = 32, kMaxWeight = 31, kOffset = kFp4Offset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(block + P16::kQuants, w);
    LookUp(kFp4Table.values, 8, w);
  }
  // 2^(e - 128): (e - 1) << 23 as bits of a float; below e = 2, where that is not positive,
  // (e + 1) << 21, which is the subnormal.
  static inline F D(const uint8_t* block) {
    const I e = LoadU8(block + P16::kExponents);
    const I normal = ShiftLeftI<23>(SubI(e, SetI1(1)));
    return FloatOf(MaxI(normal, ShiftLeftI<21>(AddI(e, SetI1(1)))));
  }
};

// Two dwords: low nibbles are k = 0..7, high ones 8..15.
struct FormatNVFP4 : HalfScaled<P16NVFP4> {
  static constexpr int kBlock = 16, kMaxWeight = 31, kOffset = kFp4Offset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    for (int i = 0; i < 2; ++i) {
      const B v = LoadB(block + P16::kQuants + 64 * i);
      w[i] = Bits<0, 15>(v);
      w[i + 2] = Bits<4, 15>(v);
    }
    LookUp(kFp4Table.values, 4, w);
  }
};

// --- blocks of 256: the dwords of a chunk (p16.h)

// Lanes of two int16.
static inline I JoinInt16(I low, I high) {
  return AddI(AndI(low, SetI1(0xffff)), ShiftLeftI<16>(high));
}

// Bits [kFrom, ..) of every byte, as many as kMask has, as bits [kTo, ..): one shift, since what it
// carries over from the neighbouring byte is masked.
template <int kFrom, int kTo, int kMask>
static inline B MoveBits(B v) {
  if constexpr (kFrom < kTo) {
    return Bits<0, (kMask << kTo)>(ShiftLeftB<kTo - kFrom>(v));
  } else {
    return Bits<kFrom - kTo, (kMask << kTo)>(v);
  }
}

// Groups i, i + 2, i + 4 and i + 6 are the bit pairs of dword i.
static inline void UnpackTwoBits(const uint8_t* quants, B* w) {
  for (int i = 0; i < 2; ++i) {
    const B v = LoadB(quants + 64 * i);
    w[i] = Bits<0, 3>(v);
    w[i + 2] = Bits<2, 3>(v);
    w[i + 4] = Bits<4, 3>(v);
    w[i + 6] = Bits<6, 3>(v);
  }
}

struct FormatQ2_K : HalfScaled<P16Q2_K> {
  static constexpr int kBlock = 256, kSubBlock = 16, kMaxWeight = 3, kOffset = 0, kScaleBits = 4;
  static constexpr bool kHasMin = true;
  static constexpr float kMinSign = -1.0f;
  static constexpr bool kUnpackInParts = true;  // matmul_few.inl.h
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackTwoBits(block + P16::kQuants + 128 * kChunk, w);
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return AndI(LoadU8(block + P16::kScales + 16 * sub_block), SetI1(15));
  }
  static inline I MinPair(const uint8_t* block, int pair) {
    const uint8_t* scales = block + P16::kScales + 32 * pair;
    return JoinInt16(ShiftRightI<4>(LoadU8(scales)), ShiftRightI<4>(LoadU8(scales + 16)));
  }
};

struct FormatQ3_K : HalfScaled<P16Q3_K> {
  static constexpr int kBlock = 256, kSubBlock = 16, kMaxWeight = 7, kOffset = 4;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    const uint8_t* quants = block + P16::kQuants + 192 * kChunk;
    const B first = LoadB(quants), second = LoadB(quants + 64), rest = LoadB(quants + 128);
    w[0] = Bits<0, 7>(first);
    w[1] = Bits<0, 7>(second);
    w[2] = Bits<3, 7>(first);
    w[3] = Bits<3, 7>(second);
    w[4] = OrB(Bits<6, 3>(first), MoveBits<6, 2, 1>(rest));
    w[5] = OrB(Bits<6, 3>(second), MoveBits<7, 2, 1>(rest));
    w[6] = Bits<0, 7>(rest);
    w[7] = Bits<3, 7>(rest);
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return LoadI8(block + P16::kScales + 16 * sub_block);
  }
};

// Scales and minimums of 6 bits (p16.h), four sub-blocks to a half.
template <typename Layout, int kBits>
struct SixBitScalesAndMins : HalfScaled<Layout> {
  static constexpr int kBlock = 256, kSubBlock = 32, kOffset = 0, kMaxWeight = (1 << kBits) - 1;
  static constexpr int kScaleBits = 6;
  static constexpr bool kHasMin = true;
  static constexpr float kMinSign = -1.0f;
  template <int kChunk>
  static inline const uint8_t* Quants(const uint8_t* block) {
    return block + Layout::kHalf * (kChunk / 4) + Layout::kQuants + 64 * kBits * (kChunk % 4);
  }
  static inline B Scales(const uint8_t* block, int half) {
    return LoadB(block + Layout::kHalf * half + Layout::kScales);
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return AndI(ShiftRightBy(Scales(block, sub_block / 4), 8 * (sub_block % 4)), SetI1(63));
  }
  template <int kSubBlockIndex>
  static inline I ScaleTwice(const uint8_t* block) {
    return AndI(ByteTwiceInLane<kSubBlockIndex % 4>(Scales(block, kSubBlockIndex / 4)),
                SetI1(0x003f003f));
  }
  static inline I MinPair(const uint8_t* block, int pair) {
    const B low = ShiftRightBy(LoadB(block + Layout::kMins), 4 * pair);
    const B high = ShiftRightBy(Scales(block, pair / 2), 2 + 8 * (pair % 2));
    return OrB(AndI(low, SetI1(0x000f000f)), AndI(high, SetI1(0x00300030)));
  }
};

struct FormatQ4_K : SixBitScalesAndMins<P16Q4_K, 4> {
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(Quants<kChunk>(block), w);
  }
};

struct FormatQ5_K : SixBitScalesAndMins<P16Q5_K, 5> {
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    const uint8_t* quants = Quants<kChunk>(block);
    for (int i = 0; i < 4; ++i) {
      const B v = LoadB(quants + 64 * i);
      w[i] = Bits<0, 31>(v);
      w[i + 4] = Bits<5, 7>(v);
    }
    const B rest = LoadB(quants + 256);
    w[4] = OrB(w[4], MoveBits<0, 3, 3>(rest));
    w[5] = OrB(w[5], MoveBits<2, 3, 3>(rest));
    w[6] = OrB(w[6], MoveBits<4, 3, 3>(rest));
    w[7] = OrB(w[7], MoveBits<6, 3, 3>(rest));
  }
};

struct FormatQ6_K : HalfScaled<P16Q6_K> {
  static constexpr int kBlock = 256, kSubBlock = 16, kMaxWeight = 63, kOffset = 32;
  static constexpr bool kHasMin = false;
  static constexpr bool kUnpackInParts = true;  // matmul_few.inl.h
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    const uint8_t* quants = block + P16::kQuants + 384 * kChunk;
    for (int i = 0; i < 2; ++i) {
      const B first = LoadB(quants + 128 * i), second = LoadB(quants + 128 * i + 64);
      const B rest = LoadB(quants + 256 + 64 * i);
      w[2 * i] = Bits<0, 63>(first);
      w[2 * i + 1] = Bits<0, 63>(second);
      w[2 * i + 4] = OrB(Bits<6, 3>(first), MoveBits<0, 2, 15>(rest));
      w[2 * i + 5] = OrB(Bits<6, 3>(second), MoveBits<4, 2, 15>(rest));
    }
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return LoadI8(block + P16::kScales + 16 * sub_block);
  }
};

struct FormatIQ4_XS : HalfScaled<P16IQ4_XS> {
  static constexpr int kBlock = 256, kSubBlock = 32, kMaxWeight = 255, kOffset = kSignedOffset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibbles(block + P16::kQuants + 256 * kChunk, w);
    LookUp(kIq4Table.values, 8, w);
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return LoadI8(block + P16::kScales + 16 * sub_block);
  }
};

// TQ1_0 and TQ2_0: no sub-scales.
struct FormatTQ : HalfScaled<P16TQ> {
  static constexpr int kBlock = 256, kSubBlock = 32, kMaxWeight = 3, kOffset = 1;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackTwoBits(block + P16::kQuants + 128 * kChunk, w);
  }
  static inline I Scale(const uint8_t*, int) { return SetI1(1); }
};
