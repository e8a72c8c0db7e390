// Formats with codebooks: blocks of 256 (formats.inl.h), after formats_k.inl.h.

// Scales 2 s + 1 with s in a nibble, two to a byte.
template <typename Layout, int kElements, int kDivisor>
struct NibbleScaled : HalfScaled<Layout, kDivisor>, SubBlocks<kElements> {
  static constexpr bool kLooksUp = true;
  DT_DEVICE_MEMBER int Scale(auto block, int sub_block, int row) {
    const int both = LoadByte(block + Layout::kScales, sub_block / 2, row);
    return 2 * (both >> (sub_block % 2 * 4) & 15) + 1;
  }
};

// Magnitudes with the signs of quad i of a chunk.
template <typename P16>
DT_DEVICE uint32_t WithSigns(auto block, uint32_t magnitudes, int chunk, int i, int row) {
  const uint32_t bits = LoadDword(block + P16::kSigns + 64 * chunk, 0, row);
  const uint32_t signs = BitsAsBytes(bits, i) * 0xffu;
  return SubtractBytes(magnitudes ^ signs, signs);
}

// Quad i of a grid entry of eight; kHighBits more bits of each index.
template <typename P16, int kHighBits>
DT_DEVICE uint32_t GroupOf8(auto block, const int8_t (*grid)[8], int chunk, int i, int row) {
  const int group = i / 2;
  int index = LoadByte(block + P16::kIndex, 4 * chunk + group, row);
  if constexpr (kHighBits > 0) {
    const int high = LoadByte(block + P16::kHigh, chunk * kHighBits / 2, row);
    const int shift = 4 * kHighBits * chunk % 8 + kHighBits * group;
    index |= (high >> shift & ((1 << kHighBits) - 1)) << 8;
  }
  const uint32_t magnitudes = LoadVector<uint32_t>(grid[index] + 4 * (i % 2));
  return WithSigns<P16>(block, magnitudes, chunk, i, row);
}

template <typename P16, int kHighBits>
DT_DEVICE uint32_t GroupOf4(auto block, const int8_t (*grid)[4], int chunk, int i, int row) {
  int index = LoadByte(block + P16::kIndex, 8 * chunk + i, row);
  if constexpr (kHighBits > 0) {
    index |= (LoadByte(block + P16::kHigh, chunk, row) >> i & 1) << 8;
  }
  return WithSigns<P16>(block, LoadVector<uint32_t>(grid[index]), chunk, i, row);
}

struct FormatIQ2_XXS : NibbleScaled<P16IQ2_XXS, 32, 8> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return GroupOf8<P16, 0>(block, DeviceCodebooks().iq2_xxs, chunk, i, row);
  }
};
struct FormatIQ2_XS : NibbleScaled<P16IQ2_XS, 16, 8> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return GroupOf8<P16, 1>(block, DeviceCodebooks().iq2_xs, chunk, i, row);
  }
};
struct FormatIQ2_S : NibbleScaled<P16IQ2_S, 16, 8> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return GroupOf8<P16, 2>(block, DeviceCodebooks().iq2_s, chunk, i, row);
  }
};
struct FormatIQ3_XXS : NibbleScaled<P16IQ3_XXS, 32, 4> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return GroupOf4<P16, 0>(block, DeviceCodebooks().iq3_xxs, chunk, i, row);
  }
};
struct FormatIQ3_S : NibbleScaled<P16IQ3_S, 32, 1> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return GroupOf4<P16, 1>(block, DeviceCodebooks().iq3_s, chunk, i, row);
  }
};

// The grid has 8 (value + 1); the quant is 8 value + 1, or - 1 where delta is negative.
template <typename P16>
DT_DEVICE uint32_t Iq1Quad(auto block, int chunk, int i, int row) {
  const int group = i / 2;
  const int high = LoadByte(block + P16::kHigh, 2 * chunk + group / 2, row) >> (group % 2 * 4) & 15;
  const int index = LoadByte(block + P16::kIndex, 4 * chunk + group, row) | (high & 7) << 8;
  const uint32_t entry = LoadVector<uint32_t>(DeviceCodebooks().iq1[index] + 4 * (i % 2));
  return SubtractBytes(entry, (high & 8) != 0 ? 0x09090909u : 0x07070707u);
}

struct FormatIQ1_S : NibbleScaled<P16IQ1_S, 32, 8> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return Iq1Quad<P16>(block, chunk, i, row);
  }
};
struct FormatIQ1_M : NibbleScaled<P16IQ1_M, 16, 8> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int chunk, int i, int row) {
    return Iq1Quad<P16>(block, chunk, i, row);
  }
};
