#include "base/packed_layout.h"

#include "base/check.h"

namespace dovetail {

namespace {

bool IsP16(PackedLayout layout) {
  return layout == PackedLayout::kP16 || layout == PackedLayout::kP16Device;
}

}  // namespace

absl::string_view PackedLayoutName(PackedLayout layout) {
  switch (layout) {
    case PackedLayout::kRaw:
      return "raw";
    case PackedLayout::kP16:
      return "p16";
    case PackedLayout::kInPlace:
      return "in_place";
    case PackedLayout::kP16Device:
      return "p16_device";
  }
  DT_CHECK(false);
}

int64_t PackedBlockBytes(PackedLayout layout, WeightType type) {
  const int64_t stored = InfoOf(type).block_bytes;
  if (!IsP16(layout)) return stored;
  // P16 keeps the bytes of the block, but for fields that a lane could only read by shifting across
  // bytes or by computing: those are stored ready.
  switch (type) {
    case WeightType::kQ3_K:  // 6-bit scales as a byte each
      return stored + 4;
    case WeightType::kIQ4_XS:
      return stored + 2;
    case WeightType::kIQ2_XXS:  // all 8 signs of 7 stored ones
    case WeightType::kIQ2_XS:
    case WeightType::kIQ3_XXS:
    case WeightType::kIQ1_S:  // 3-bit fields as nibbles
      return stored + 4;
    case WeightType::kIQ1_M:
      return stored + 2;
    case WeightType::kTQ1_0:  // 2 bits for a ternary digit
      return stored + 12;
    case WeightType::kNVFP4:  // scales as halves
      return stored + 4;
    default:
      return stored;
  }
}

bool HasFastKernel(PackedLayout layout, WeightType type) {
  return layout != PackedLayout::kRaw && IsSupported(type);
}

int64_t PackedBytes(PackedLayout layout, WeightType type, int64_t rows, int64_t cols) {
  const int64_t block = InfoOf(type).block_elements;
  DT_CHECK_EQ(cols % block, 0);
  if (IsP16(layout) && !IsFloat(type)) {
    rows = (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
  }
  const int64_t bytes = rows * (cols / block) * PackedBlockBytes(layout, type);
  return (bytes + 63) / 64 * 64;
}

int64_t InPlaceScratchBytes(int64_t cols) {
  // No quantised type takes more than Q8_0: 34 bytes for 32 elements.
  constexpr int64_t kBlock = 256, kBytesOfBlock = 256 / 32 * 34;
  return kInPlacePanels * kPanelRows * ((cols + kBlock - 1) / kBlock) * kBytesOfBlock;
}

}  // namespace dovetail
