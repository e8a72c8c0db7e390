// What is particular to a weight type: how the canonical form of its blocks
// (kernels/quant/format.h) is read from P16 (kernels/cpu/p16.h), which a GPU shares with CPUs.
//
// A format states its elements per block and sub-block and whether it has minimums. Of row `row` of
// a panel's block: Quad, k = 32 chunk + 4 i .. + 3 as four signed bytes; Scale and Min, the small
// integers of a sub-block; D, and MinScale, which is -dmin. Lanes that read neighbouring rows of
// one quad read neighbouring dwords. `block` points to memory, or is a SharedBytes (device.h).

DT_DEVICE uint32_t LoadDword(auto plane, int i, int row) {
  return LoadVector<uint32_t>(plane + (i * kPanelRows + row) * 4);
}
DT_DEVICE int LoadByte(auto plane, int i, int row) {
  return LoadVector<uint8_t>(plane + (i * kPanelRows + row));
}
DT_DEVICE int LoadSigned(auto plane, int i, int row) {
  return static_cast<int8_t>(LoadVector<uint8_t>(plane + (i * kPanelRows + row)));
}
DT_DEVICE float LoadHalf(auto plane, int row) {
  return HalfToFloat(LoadVector<uint16_t>(plane + 2 * row));
}

// Bits 4 i .. 4 i + 3 as bytes of 0 or 1.
DT_DEVICE uint32_t BitsAsBytes(uint32_t bits, int i) {
  return ((bits >> (4 * i) & 15u) * 0x00204081u) & 0x01010101u;
}

// Sixteen signed bytes that a nibble names.
struct ValueTable {
  uint32_t words[4];
};
constexpr ValueTable MakeTable(const int8_t (&values)[16]) {
  ValueTable table = {};
  for (int i = 0; i < 16; ++i) {
    table.words[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(values[i])) << (8 * (i % 4));
  }
  return table;
}

// The values of four nibbles, one in each byte of `nibbles`.
DT_DEVICE uint32_t LookUp(const ValueTable& table, uint32_t nibbles) {
  // Four selectors of three bits each side by side; bit 3 chooses between the two halves.
  const uint32_t three = nibbles & 0x07070707u;
  const uint32_t select = (three | three >> 4) & 0x00ff00ffu;
  const uint32_t packed = (select | select >> 8) & 0xffffu;
  const uint32_t low = BytePermute(table.words[0], table.words[1], packed);
  const uint32_t high = BytePermute(table.words[2], table.words[3], packed);
  const uint32_t upper = (nibbles >> 3 & 0x01010101u) * 0xffu;
  return (high & upper) | (low & ~upper);
}

template <typename Layout, int kDivisor = 1>
struct HalfScaled {
  using P16 = Layout;
  DT_DEVICE_MEMBER float D(auto block, int row) {
    return LoadHalf(block + P16::kD, row) * (1.0f / kDivisor);
  }
};

// Nibbles i and i + 4 of a quad share a dword.
template <typename P16>
DT_DEVICE uint32_t NibblesOf32(auto block, int i, int row) {
  return LoadDword(block + P16::kQuants, i % 4, row) >> (i / 4 * 4) & 0x0f0f0f0fu;
}

// Elements at .. at + 3 of row `row` of a panel's block, dequantised (kernels/quant/format.h).
template <typename Format>
DT_DEVICE void DequantizeQuad(auto block, int at, int row, float* v) {
  const uint32_t quad = Format::Quad(block, at / 32, at % 32 / 4, row);
  const int sub_block = at / Format::kSubBlock;
  const float d = Format::D(block, row) * static_cast<float>(Format::Scale(block, sub_block, row));
  float min = 0.0f;
  if constexpr (Format::kHasMin) {
    min = Format::MinScale(block, row) * static_cast<float>(Format::Min(block, sub_block, row));
  }
  for (int i = 0; i < 4; ++i) {
    const float scaled = d * static_cast<float>(static_cast<int8_t>(quad >> (8 * i)));
    v[i] = Format::kHasMin ? scaled + min : scaled;
  }
}
