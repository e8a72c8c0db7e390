// Rows as GGUF stores them become panels of P16 (kernels/cpu/p16.h), by the rules that processors
// pack by (kernels/cpu/pack_rules.h). After elementwise.inl.h.

// A block whose bytes go to the planes as they are.
struct StoredBlock {
  uint8_t first;  // of them
};

// Byte i of what a block is rewritten as (kernels/cpu/expand.h); of NVFP4's four parts, one after
// the other.
DT_DEVICE uint8_t RowByte(const StoredBlock& b, int i) {
  return reinterpret_cast<const uint8_t*>(&b)[i];
}

DT_DEVICE uint8_t RowByte(const BlockNVFP4& b, int i) {
  const int part = i / 10, at = i % 10;
  if (at < 8) return b.qs[8 * part + at];
  return static_cast<uint8_t>(Ue4m3AsHalf(b.d[part]) >> (8 * (at - 8)));
}

// Of a block, the eight groups of a chunk.
template <typename Block>
struct ChunkGroups {
  const Block& block;
  int chunk;
  constexpr uint32_t operator()(int i) const { return GroupOf(block, 8 * chunk + i); }
};

// Byte i of the chunks of a block of kBits-bit elements.
template <int kBits, typename Block>
DT_DEVICE uint8_t ChunksByte(const Block& b, int i) {
  const ChunkGroups<Block> groups = {b, i / (4 * kBits)};
  return static_cast<uint8_t>(ChunkDword<kBits>(groups, i % (4 * kBits) / 4) >> (i % 4 * 8));
}

DT_DEVICE uint8_t RowByte(const BlockQ2_K& b, int i) {
  if (i < 64) return ChunksByte<2>(b, i);
  if (i < 80) return b.scales[i - 64];
  return i < 82 ? b.d.bytes[i - 80] : b.dmin.bytes[i - 82];
}

DT_DEVICE uint8_t RowByte(const BlockQ3_K& b, int i) {
  if (i < 96) return ChunksByte<3>(b, i);
  if (i < 112) return static_cast<uint8_t>(UnpackScaleQ3_K(b.scales, i - 96));
  return b.d.bytes[i - 112];
}

// Of Q4_K and Q5_K.
template <int kBits, typename Block>
DT_DEVICE uint8_t ScaleMinRowByte(const Block& b, int i) {
  constexpr int kChunks = 16 * kBits, kHalf = 4 + kChunks;  // bytes
  const int half = i / kHalf, at = i % kHalf;
  if (at < 4) return static_cast<uint8_t>(ScaleMinDword(b.scales, half) >> (at * 8));
  if (half < 2) return ChunksByte<kBits>(b, half * kChunks + at - 4);
  return at < 6 ? b.d.bytes[at - 4] : b.dmin.bytes[at - 6];
}
DT_DEVICE uint8_t RowByte(const BlockQ4_K& b, int i) { return ScaleMinRowByte<4>(b, i); }
DT_DEVICE uint8_t RowByte(const BlockQ5_K& b, int i) { return ScaleMinRowByte<5>(b, i); }

DT_DEVICE uint8_t RowByte(const BlockQ6_K& b, int i) {
  if (i < 192) return ChunksByte<6>(b, i);
  return i < 208 ? static_cast<uint8_t>(b.scales[i - 192]) : b.d.bytes[i - 208];
}

DT_DEVICE uint8_t RowByte(const BlockIQ4_XS& b, int i) {
  if (i < 128) return b.qs[i];
  if (i < 136) return static_cast<uint8_t>(UnpackScaleIQ4_XS(b, i - 128));
  return b.d.bytes[i - 136];
}

DT_DEVICE uint8_t RowByte(const BlockTQ1_0& b, int i) {
  return i < 64 ? ChunksByte<2>(b, i) : b.d.bytes[i - 64];
}

DT_DEVICE uint8_t RowByte(const BlockTQ2_0& b, int i) {
  return i < 64 ? ChunksByte<2>(b, i) : b.d.bytes[i - 64];
}

// Two nibbles in a byte, of values that have four bits.
DT_DEVICE uint8_t Nibbles(unsigned low, unsigned high) {
  return static_cast<uint8_t>((low & 15) | (high & 15) << 4);
}

DT_DEVICE uint8_t RowByte(const BlockIQ2_XXS& b, int i) {
  if (i < 32) return b.qs[i / 4 * 8 + i % 4];
  const auto word = [&](int j) { return LoadLe32(b.qs + 8 * j + 4); };
  if (i < 64) return ExpandSigns(word((i - 32) / 4) >> (7 * (i % 4)));
  if (i < 68) return Nibbles(word(2 * (i - 64)) >> 28, word(2 * (i - 64) + 1) >> 28);
  return b.d.bytes[i - 68];
}

DT_DEVICE uint8_t RowByte(const BlockIQ2_XS& b, int i) {
  if (i < 32) return b.qs[2 * i];
  if (i < 64) return ExpandSigns(LoadLe16(b.qs + 2 * (i - 32)) >> 9);
  if (i < 68) {
    unsigned high = 0;
    for (int bit = 0; bit < 8; ++bit) high |= (b.qs[2 * (8 * (i - 64) + bit) + 1] & 1u) << bit;
    return static_cast<uint8_t>(high);
  }
  return i < 76 ? b.scales[i - 68] : b.d.bytes[i - 76];
}

DT_DEVICE uint8_t RowByte(const BlockIQ3_XXS& b, int i) {
  if (i < 64) return b.qs[i];
  const auto word = [&](int j) { return LoadLe32(b.signs + 4 * j); };
  if (i < 96) return ExpandSigns(word((i - 64) / 4) >> (7 * (i % 4)));
  if (i < 100) return Nibbles(word(2 * (i - 96)) >> 28, word(2 * (i - 96) + 1) >> 28);
  return b.d.bytes[i - 100];
}

DT_DEVICE uint8_t RowByte(const BlockIQ1_S& b, int i) {
  if (i < 32) return b.qs[i];
  const auto word = [&](int j) { return unsigned{LoadLe16(b.qh + 2 * j)}; };
  // Three high bits of index l of sub-block j, and the sign of its delta.
  const auto high = [&](int l) {
    return (word(l / 4) >> (3 * (l % 4)) & 7) | (word(l / 4) >> 12 & 8);
  };
  if (i < 48) return Nibbles(high(2 * (i - 32)), high(2 * (i - 32) + 1));
  if (i < 52) return Nibbles(word(2 * (i - 48)) >> 12 & 7, word(2 * (i - 48) + 1) >> 12 & 7);
  return b.d.bytes[i - 52];
}

DT_DEVICE uint8_t RowByte(const BlockIQ1_M& b, int i) {
  if (i < 32) return b.qs[i];
  if (i < 48) return b.qh[i - 32];
  const auto scale = [&](int j) {
    return unsigned{LoadLe16(b.scales + j / 4 * 2)} >> (3 * (j % 4)) & 7;
  };
  if (i < 56) return Nibbles(scale(2 * (i - 48)), scale(2 * (i - 48) + 1));
  return static_cast<uint8_t>(UnpackScaleBitsIQ1_M(b.scales) >> (8 * (i - 56)));
}

// The rows of a matrix, and how their blocks are cut.
struct PackShape {
  PackArgs args;
  PackRule rule;
  int32_t block_bytes;  // of a row's block in the file
  int32_t blocks;       // of a row
  int32_t parts;        // of a block
};

// The four bytes from `at` on of part `part` of a panel's block, whose first row is `first`.
template <typename Block>
DT_DEVICE uint32_t PackedDword(const PackShape& shape, int64_t first, int block, int part, int at) {
  int plane = 0;
  for (;; ++plane) {
    const int bytes = kPanelRows * shape.rule.planes[plane].unit * shape.rule.planes[plane].count;
    if (at < bytes) break;
    at -= bytes;
  }
  const Plane& found = shape.rule.planes[plane];
  const int shift = found.unit / 2;  // units are 1, 2 or 4 bytes
  const int64_t row_bytes = int64_t{shape.blocks} * shape.block_bytes;
  uint32_t dword = 0;
  for (int b = 0; b < 4; ++b) {
    const int place = at + b, unit = place >> shift;
    const int64_t row = first + unit % kPanelRows;
    if (row >= shape.args.n) continue;
    const uint8_t* from = shape.args.rows + row * row_bytes + int64_t{block} * shape.block_bytes;
    const int byte = part * shape.rule.row_bytes + found.source + ((unit / kPanelRows) << shift) +
                     (place & (found.unit - 1));
    dword |= uint32_t{RowByte(*reinterpret_cast<const Block*>(from), byte)} << (8 * b);
  }
  return dword;
}

// A block of threads has a block of a panel.
template <typename Block>
DT_KERNEL void PackKernel(PackShape shape) {
  const int panel = BlockIndex() / shape.blocks, block = BlockIndex() % shape.blocks;
  const int part_bytes = kPanelRows * shape.rule.row_bytes;
  const int dwords = shape.parts * part_bytes / 4;
  auto* const to = reinterpret_cast<uint32_t*>(shape.args.packed) + int64_t{BlockIndex()} * dwords;
  for (int i = ThreadIndex(); i < dwords; i += BlockThreads()) {
    to[i] = PackedDword<Block>(shape, int64_t{panel} * kPanelRows, block, 4 * i / part_bytes,
                               4 * i % part_bytes);
  }
}
