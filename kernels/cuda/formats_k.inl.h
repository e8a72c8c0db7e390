// Formats of blocks of 256, whose chunks are of 32 (formats.inl.h).

template <int kElements>
struct SubBlocks {
  static constexpr int kBlock = 256, kSubBlock = kElements;
  static constexpr bool kHasMin = false;
};
template <int kElements>
struct SubBlocksAndMins {
  static constexpr int kBlock = 256, kSubBlock = kElements;
  static constexpr bool kHasMin = true;
};

template <typename P16>
DT_DEVICE uint32_t TwoBits(const uint8_t* block, int chunk, int i, int row) {
  return LoadDword(block + P16::kQuants + chunk / 4 * 512, i, row) >> (chunk % 4 * 2) & 0x03030303u;
}
template <typename P16>
DT_DEVICE uint32_t NibblePairs(const uint8_t* block, int chunk, int i, int row) {
  return LoadDword(block + P16::kQuants + chunk / 2 * 512, i, row) >> (chunk % 2 * 4) & 0x0f0f0f0fu;
}
// Bit `chunk` of the dwords of a bit plane, as bytes of 0 or 1.
template <typename P16>
DT_DEVICE uint32_t HighBit(const uint8_t* block, int chunk, int i, int row) {
  return LoadDword(block + P16::kHigh, i, row) >> chunk & 0x01010101u;
}

struct FormatQ2_K : HalfScaled<P16Q2_K>, SubBlocksAndMins<16> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    return TwoBits<P16>(block, chunk, i, row);
  }
  DT_DEVICE_MEMBER int Scale(const uint8_t* block, int sub_block, int row) {
    return LoadByte(block + P16::kScales, sub_block, row) & 15;
  }
  DT_DEVICE_MEMBER int Min(const uint8_t* block, int sub_block, int row) {
    return LoadByte(block + P16::kScales, sub_block, row) >> 4;
  }
  DT_DEVICE_MEMBER float MinScale(const uint8_t* block, int row) {
    return -LoadHalf(block + P16::kMin, row);
  }
};

struct FormatQ3_K : HalfScaled<P16Q3_K>, SubBlocks<16> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    const uint32_t q = TwoBits<P16>(block, chunk, i, row) | HighBit<P16>(block, chunk, i, row) << 2;
    return SubtractBytes(q, 0x04040404u);
  }
  DT_DEVICE_MEMBER int Scale(const uint8_t* block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

template <typename Layout>
struct ByteScalesAndMins : HalfScaled<Layout>, SubBlocksAndMins<32> {
  DT_DEVICE_MEMBER int Scale(const uint8_t* block, int sub_block, int row) {
    return LoadByte(block + Layout::kScales, sub_block, row);
  }
  DT_DEVICE_MEMBER int Min(const uint8_t* block, int sub_block, int row) {
    return LoadByte(block + Layout::kMins, sub_block, row);
  }
  DT_DEVICE_MEMBER float MinScale(const uint8_t* block, int row) {
    return -LoadHalf(block + Layout::kMin, row);
  }
};

struct FormatQ4_K : ByteScalesAndMins<P16Q4_K> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    return NibblePairs<P16>(block, chunk, i, row);
  }
};

struct FormatQ5_K : ByteScalesAndMins<P16Q5_K> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    return NibblePairs<P16>(block, chunk, i, row) | HighBit<P16>(block, chunk, i, row) << 4;
  }
};

struct FormatQ6_K : HalfScaled<P16Q6_K>, SubBlocks<16> {
  // Chunk = quarter t of half h: nibble t / 2 of ql dwords 8 (t & 1) .., bits 2 t, 2 t + 1 of qh.
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    const int half = chunk / 4, quarter = chunk % 4;
    const uint8_t* low = block + P16::kQuants + half * 1024 + quarter % 2 * 512;
    const uint8_t* high = block + P16::kHigh + half * 512;
    const uint32_t nibbles = LoadDword(low, i, row) >> (quarter / 2 * 4) & 0x0f0f0f0fu;
    const uint32_t two = LoadDword(high, i, row) >> (2 * quarter) & 0x03030303u;
    return SubtractBytes(nibbles | two << 4, 0x20202020u);
  }
  DT_DEVICE_MEMBER int Scale(const uint8_t* block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

struct FormatIQ4_XS : HalfScaled<P16IQ4_XS>, SubBlocks<32> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    constexpr ValueTable kTable = MakeTable(kIq4Values);
    return LookUp(kTable, NibblesOf32<P16>(block + 256 * chunk, i, row));
  }
  DT_DEVICE_MEMBER int Scale(const uint8_t* block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

// TQ1_0 and TQ2_0: no sub-scales.
struct FormatTQ : HalfScaled<P16TQ>, SubBlocks<32> {
  DT_DEVICE_MEMBER uint32_t Quad(const uint8_t* block, int chunk, int i, int row) {
    return SubtractBytes(TwoBits<P16>(block, chunk, i, row), 0x01010101u);
  }
  DT_DEVICE_MEMBER int Scale(const uint8_t*, int, int) { return 1; }
};
