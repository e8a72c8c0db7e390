#include "base/packed_layout.h"

#include "base/check.h"

namespace dovetail {

absl::string_view PackedLayoutName(PackedLayout layout) {
  return layout == PackedLayout::kRaw ? "raw" : "p16";
}

int64_t PackedBlockBytes(PackedLayout layout, WeightType type) {
  const int64_t stored = InfoOf(type).block_bytes;
  // P16 keeps every byte of the block but for Q4_K, whose eight 6-bit scales and minimums (12
  // bytes) become one byte each (16), so that a lane finds its scale without shifting across bytes.
  if (layout == PackedLayout::kP16 && type == WeightType::kQ4_K) return stored + 4;
  return stored;
}

int64_t PackedBytes(PackedLayout layout, WeightType type, int64_t rows, int64_t cols) {
  const int64_t block = InfoOf(type).block_elements;
  DT_CHECK_EQ(cols % block, 0);
  if (layout == PackedLayout::kP16 && !IsFloat(type)) {
    rows = (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
  }
  const int64_t bytes = rows * (cols / block) * PackedBlockBytes(layout, type);
  return (bytes + 63) / 64 * 64;
}

}  // namespace dovetail
