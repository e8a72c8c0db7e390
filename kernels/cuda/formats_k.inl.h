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

// Dword i of a chunk of kBits-bit elements; how those lie in it says kernels/cpu/p16.h.
template <typename P16, int kBits>
DT_DEVICE uint32_t ChunkDword(auto block, int chunk, int i, int row) {
  int at = P16::kQuants + 64 * kBits * chunk;
  if constexpr (requires { P16::kHalf; }) {
    at = P16::kHalf * (chunk / 4) + P16::kQuants + 64 * kBits * (chunk % 4);
  }
  return LoadDword(block + at, i, row);
}
template <typename P16>
DT_DEVICE uint32_t TwoBits(auto block, int chunk, int i, int row) {
  return ChunkDword<P16, 2>(block, chunk, i % 2, row) >> (i / 2 * 2) & 0x03030303u;
}
template <typename P16>
DT_DEVICE uint32_t FourBits(auto block, int chunk, int i, int row) {
  return ChunkDword<P16, 4>(block, chunk, i % 4, row) >> (i / 4 * 4) & 0x0f0f0f0fu;
}

struct FormatQ2_K : HalfScaled<P16Q2_K>, SubBlocksAndMins<16> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return TwoBits<P16>(block, chunk, i, row);
  }
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    return LoadByte(block + P16::kScales, sub_block, row) & 15;
  }
  DT_DEVICE_MEMBER int Min(auto block, int sub_block, int row) {
    return LoadByte(block + P16::kScales, sub_block, row) >> 4;
  }
  DT_DEVICE_MEMBER float MinScale(auto block, int row) { return -LoadHalf(block + P16::kMin, row); }
};

struct FormatQ3_K : HalfScaled<P16Q3_K>, SubBlocks<16> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    const uint32_t own = ChunkDword<P16, 3>(block, chunk, i % 2, row);
    const uint32_t rest = ChunkDword<P16, 3>(block, chunk, 2, row);
    uint32_t q = own >> (i / 2 * 3) & 0x07070707u;
    if (i >= 6) q = rest >> (i - 6) * 3 & 0x07070707u;
    if (i == 4 || i == 5) q = (own >> 6 & 0x03030303u) | (rest >> i & 0x04040404u);
    return SubtractBytes(q, 0x04040404u);
  }
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

template <typename Layout>
struct SixBitScalesAndMins : HalfScaled<Layout>, SubBlocksAndMins<32> {
  DT_DEVICE_MEMBER uint32_t Scales(auto block, int half, int row) {
    return LoadDword(block + Layout::kHalf * half + Layout::kScales, 0, row);
  }
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    return static_cast<int>(Scales(block, sub_block / 4, row) >> (8 * (sub_block % 4)) & 63);
  }
  DT_DEVICE_MEMBER int Min(auto block, int sub_block, int row) {
    const int pair = sub_block / 2, place = 16 * (sub_block % 2);
    const uint32_t low = LoadDword(block + Layout::kMins, 0, row) >> (place + 4 * pair);
    const uint32_t high = Scales(block, pair / 2, row) >> (place + 2 + 8 * (pair % 2));
    return static_cast<int>((low & 0x0f) | (high & 0x30));
  }
  DT_DEVICE_MEMBER float MinScale(auto block, int row) {
    return -LoadHalf(block + Layout::kMin, row);
  }
};

struct FormatQ4_K : SixBitScalesAndMins<P16Q4_K> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return FourBits<P16>(block, chunk, i, row);
  }
};

struct FormatQ5_K : SixBitScalesAndMins<P16Q5_K> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    const uint32_t own = ChunkDword<P16, 5>(block, chunk, i % 4, row);
    if (i < 4) return own & 0x1f1f1f1fu;
    const uint32_t rest = ChunkDword<P16, 5>(block, chunk, 4, row);
    return (own >> 5 & 0x07070707u) | (rest >> (i - 4) * 2 & 0x03030303u) << 3;
  }
};

struct FormatQ6_K : HalfScaled<P16Q6_K>, SubBlocks<16> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    const uint32_t own = ChunkDword<P16, 6>(block, chunk, i % 4, row);
    uint32_t q = own & 0x3f3f3f3fu;
    if (i >= 4) {
      const uint32_t rest = ChunkDword<P16, 6>(block, chunk, 4 + (i - 4) / 2, row);
      q = (own >> 6 & 0x03030303u) | (rest >> (i % 2 * 4) & 0x0f0f0f0fu) << 2;
    }
    return SubtractBytes(q, 0x20202020u);
  }
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

struct FormatIQ4_XS : HalfScaled<P16IQ4_XS>, SubBlocks<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    constexpr ValueTable kTable = MakeTable(kIq4Values);
    return LookUp(kTable, FourBits<P16>(block, chunk, i, row));
  }
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    return LoadSigned(block + P16::kScales, sub_block, row);
  }
};

// TQ1_0 and TQ2_0: no sub-scales.
struct FormatTQ : HalfScaled<P16TQ>, SubBlocks<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return SubtractBytes(TwoBits<P16>(block, chunk, i, row), 0x01010101u);
  }
  DT_DEVICE_MEMBER int Scale(auto, int, int) { return 1; }
};
