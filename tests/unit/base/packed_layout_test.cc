#include "base/packed_layout.h"

#include "gtest/gtest.h"

namespace dovetail {
namespace {

TEST(PackedLayoutTest, Names) {
  EXPECT_EQ(PackedLayoutName(PackedLayout::kRaw), "raw");
  EXPECT_EQ(PackedLayoutName(PackedLayout::kP16), "p16");
}

TEST(PackedLayoutTest, RawIsWhatTheFileHolds) {
  for (WeightType type : SupportedWeightTypes()) {
    EXPECT_EQ(PackedBlockBytes(PackedLayout::kRaw, type), InfoOf(type).block_bytes);
    EXPECT_EQ(PackedBytes(PackedLayout::kRaw, type, 32, 512), 32 * StoredBytes(type, 512));
  }
}

TEST(PackedLayoutTest, P16PadsRowsToPanelsAndBytesToLines) {
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kQ4_1, 17, 64), 32 * 40);
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kQ4_K, 16, 256), 16 * 144);
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kQ6_K, 16, 256), (16 * 210 + 63) / 64 * 64);
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kNVFP4, 1, 64), 16 * 40);
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kIQ2_XXS, 16, 512), 16 * 140);
  // Float weights keep their rows.
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kF32, 1, 3), 64);
  EXPECT_EQ(PackedBytes(PackedLayout::kP16, WeightType::kBF16, 17, 64), 17 * 128);
}

TEST(PackedLayoutTest, PackingCostsLittle) {
  for (WeightType type : SupportedWeightTypes()) {
    const int64_t packed = PackedBlockBytes(PackedLayout::kP16, type);
    EXPECT_GE(packed, InfoOf(type).block_bytes);
    EXPECT_LE(packed, InfoOf(type).block_bytes * 5 / 4) << std::string(InfoOf(type).name);
    EXPECT_TRUE(HasFastKernel(PackedLayout::kP16, type));
    EXPECT_FALSE(HasFastKernel(PackedLayout::kRaw, type));
    EXPECT_TRUE(HasFastKernel(PackedLayout::kInPlace, type));
  }
  EXPECT_FALSE(HasFastKernel(PackedLayout::kP16, WeightType::kQ8_K));
}

TEST(PackedLayoutTest, TypesOfCommonFilesTakeNoMoreThanStored) {
  for (WeightType type : {WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ6_K,
                          WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    EXPECT_EQ(PackedBlockBytes(PackedLayout::kP16, type), InfoOf(type).block_bytes)
        << std::string(InfoOf(type).name);
  }
}

TEST(PackedLayoutTest, PanelsReadInPlaceHaveRoomWhateverTheirType) {
  for (WeightType type : SupportedWeightTypes()) {
    if (IsFloat(type)) continue;  // not packed
    for (const int64_t blocks : {1, 2, 9, 72}) {
      const int64_t cols = blocks * InfoOf(type).block_elements;
      EXPECT_LE(PackedBytes(PackedLayout::kP16, type, kInPlacePanels * kPanelRows, cols),
                InPlaceScratchBytes(cols))
          << std::string(InfoOf(type).name);
    }
  }
  EXPECT_EQ(InPlaceScratchBytes(100) % 64, 0);
  EXPECT_EQ(PackedLayoutName(PackedLayout::kInPlace), "in_place");
}

TEST(PackedLayoutDeathTest, ColumnsMustBeWholeBlocks) {
  EXPECT_DEATH(PackedBytes(PackedLayout::kP16, WeightType::kQ4_K, 16, 128), "check failed");
}

}  // namespace
}  // namespace dovetail
