// What is particular to a weight type in P16: how 32 consecutive k of a panel become 8 byte
// vectors. Everything else is shared (matmul_quant.inl.h). Included once, inside the instruction
// set's namespace.
//
// A format states its P16 layout, elements per block and per sub-scale, the largest byte that
// Unpack gives (above 127: see FromSigned), the offset that those bytes carry over the true q, and
// has_min. Unpack<kChunk> writes chunk kChunk (32 k) of the panel block: w[i] holds k = 4i .. 4i
// + 3.

template <typename P16>
static inline void UnpackNibblesOf32(const uint8_t* block, B* w) {
  for (int i = 0; i < 4; ++i) {
    const B v = LoadB(block + P16::kQuants + 64 * i);
    w[i] = Bits<0, 15>(v);
    w[i + 4] = Bits<4, 15>(v);
  }
}

struct FormatQ4_0 {
  using P16 = P16Q4_0;
  static constexpr int kBlock = 32, kSubBlock = 32, kMaxWeight = 15, kOffset = 8;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibblesOf32<P16>(block, w);
  }
};

struct FormatQ4_1 {
  using P16 = P16Q4_1;
  static constexpr int kBlock = 32, kSubBlock = 32, kMaxWeight = 15, kOffset = 0;
  static constexpr bool kHasMin = true;
  // y = d q + m; the canonical minimum is -m (kernels/quant/format.h).
  static constexpr float kMinSign = 1.0f;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    UnpackNibblesOf32<P16>(block, w);
  }
};

struct FormatQ8_0 {
  using P16 = P16Q8_0;
  static constexpr int kBlock = 32, kSubBlock = 32, kMaxWeight = 255, kOffset = kSignedOffset;
  static constexpr bool kHasMin = false;
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    for (int i = 0; i < 8; ++i) w[i] = FromSigned(LoadB(block + P16::kQuants + 64 * i));
  }
};

struct FormatQ4_K {
  using P16 = P16Q4_K;
  static constexpr int kBlock = 256, kSubBlock = 32, kMaxWeight = 15, kOffset = 0;
  static constexpr bool kHasMin = true;
  static constexpr float kMinSign = -1.0f;
  // Chunks 2p and 2p + 1 are the low and high nibbles of the same bytes.
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    const uint8_t* quants = block + P16::kQuants + kChunk / 2 * 512;
    for (int i = 0; i < 8; ++i) w[i] = Bits<kChunk % 2 * 4, 15>(LoadB(quants + 64 * i));
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return LoadU8(block + P16::kScales + 16 * sub_block);
  }
};

struct FormatQ6_K {
  using P16 = P16Q6_K;
  static constexpr int kBlock = 256, kSubBlock = 16, kMaxWeight = 63, kOffset = 32;
  static constexpr bool kHasMin = false;
  // Chunk = quarter t of half h: nibble t / 2 of ql dwords 8 (t & 1).., bits 2t, 2t + 1 of qh.
  template <int kChunk>
  static inline void Unpack(const uint8_t* block, B* w) {
    constexpr int kHalf = kChunk / 4, kQuarter = kChunk % 4;
    const uint8_t* low = block + P16::kQuants + kHalf * 1024 + kQuarter % 2 * 512;
    const uint8_t* high = block + P16::kHigh + kHalf * 512;
    for (int i = 0; i < 8; ++i) {
      const B two = ShiftLeftB<4>(Bits<2 * kQuarter, 3>(LoadB(high + 64 * i)));
      w[i] = OrB(Bits<kQuarter / 2 * 4, 15>(LoadB(low + 64 * i)), two);
    }
  }
  static inline I Scale(const uint8_t* block, int sub_block) {
    return LoadI8(block + P16::kScales + 16 * sub_block);
  }
};
