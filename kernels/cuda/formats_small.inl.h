// Formats of blocks of 32 and 16, of one sub-block (formats.inl.h).

template <int kElements>
struct OneScale {
  static constexpr int kBlock = kElements, kSubBlock = kElements;
  static constexpr bool kHasMin = false;
  DT_DEVICE_MEMBER int Scale(auto, int, int) { return 1; }
};

template <int kElements>
struct OneScaleAndMin {
  static constexpr int kBlock = kElements, kSubBlock = kElements;
  static constexpr bool kHasMin = true;
  DT_DEVICE_MEMBER int Scale(auto, int, int) { return 1; }
  DT_DEVICE_MEMBER int Min(auto, int, int) { return 1; }
};

template <typename P16>
DT_DEVICE uint32_t FiveBitsOf32(auto block, int i, int row) {
  const uint32_t bits = LoadDword(block + P16::kHigh, 0, row);
  return NibblesOf32<P16>(block, i, row) | BitsAsBytes(bits, i) << 4;
}

struct FormatQ4_0 : HalfScaled<P16Q4_0>, OneScale<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    return SubtractBytes(NibblesOf32<P16>(block, i, row), 0x08080808u);
  }
};

struct FormatQ4_1 : HalfScaled<P16Q4_1>, OneScaleAndMin<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    return NibblesOf32<P16>(block, i, row);
  }
  DT_DEVICE_MEMBER float MinScale(auto block, int row) { return LoadHalf(block + P16::kMin, row); }
};

struct FormatQ5_0 : HalfScaled<P16Q5_0>, OneScale<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    return SubtractBytes(FiveBitsOf32<P16>(block, i, row), 0x10101010u);
  }
};

struct FormatQ5_1 : HalfScaled<P16Q5_1>, OneScaleAndMin<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    return FiveBitsOf32<P16>(block, i, row);
  }
  DT_DEVICE_MEMBER float MinScale(auto block, int row) { return LoadHalf(block + P16::kMin, row); }
};

struct FormatQ8_0 : HalfScaled<P16Q8_0>, OneScale<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    return LoadDword(block + P16::kQuants, i, row);
  }
};

struct FormatIQ4_NL : HalfScaled<P16Q4_0>, OneScale<32> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    constexpr ValueTable kTable = MakeTable(kIq4Values);
    return LookUp(kTable, NibblesOf32<P16>(block, i, row));
  }
};

struct FormatMXFP4 : OneScale<32> {
  using P16 = P16MXFP4;
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    constexpr ValueTable kTable = MakeTable(kFp4Values);
    return LookUp(kTable, NibblesOf32<P16>(block, i, row));
  }
  // 2^(e - 128), half of MXFP4's scale; subnormal below e = 2.
  DT_DEVICE_MEMBER float D(auto block, int row) {
    const uint32_t e = static_cast<uint32_t>(LoadByte(block + P16::kExponents, 0, row));
    return FloatOf(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
};

struct FormatNVFP4 : HalfScaled<P16NVFP4>, OneScale<16> {
  DT_DEVICE_MEMBER uint32_t Quad(auto block, int, int i, int row) {
    constexpr ValueTable kTable = MakeTable(kFp4Values);
    const uint32_t v = LoadDword(block + P16::kQuants, i % 2, row);
    return LookUp(kTable, v >> (i / 2 * 4) & 0x0f0f0f0fu);
  }
};
