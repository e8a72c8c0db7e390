#include "base/kv_cache.h"

#include "base/step_shape.h"
#include "gtest/gtest.h"

namespace dovetail {
namespace {

TEST(KvCacheTest, NamesAreThoseOfSettings) {
  for (const KvType type : kKvTypes) {
    KvType found = KvType::kF32;
    EXPECT_TRUE(FindKvType(KvTypeName(type), &found));
    EXPECT_EQ(found, type);
    EXPECT_NE(std::string(kKvTypeNames).find(KvTypeName(type)), std::string::npos);
  }
  KvType type = KvType::kQ8_0;
  EXPECT_FALSE(FindKvType("q8", &type));
  EXPECT_EQ(type, KvType::kQ8_0);
}

TEST(KvCacheTest, BytesOfABlock) {
  const KvShape heads = {KvLayout::kHeads, 8, 128, 128};
  EXPECT_EQ(KvBlockBytes(heads, KvType::kF32), 32 * 8 * 256 * 4);
  EXPECT_EQ(KvBlockBytes(heads, KvType::kBF16), 32 * 8 * 256 * 2);
  EXPECT_EQ(KvBlockBytes(heads, KvType::kQ8_0), 32 * 8 * (256 + 8 * 2));
  // DeepSeek-V3: 576 numbers a token, once.
  const KvShape latent = {KvLayout::kLatent, 1, 576, 512};
  EXPECT_EQ(KvBlockBytes(latent, KvType::kF16), 32 * 1152);
  EXPECT_EQ(KvBlockBytes(latent, KvType::kQ8_0), 32 * 612);
  // A scale for what is left of a row, too.
  EXPECT_EQ(KvPartBytes(KvType::kQ8_0, 33), 32 * (33 + 4));
}

TEST(KvCacheTest, LayersMayDiffer) {
  StepShape shape;
  shape.kv_type = KvType::kQ8_0;
  shape.layer_kv_types = {KvType::kF32, KvType::kF16};
  EXPECT_EQ(shape.KvTypeOf(0), KvType::kF32);
  EXPECT_EQ(shape.KvTypeOf(1), KvType::kF16);
  EXPECT_EQ(shape.KvTypeOf(2), KvType::kQ8_0);
}

}  // namespace
}  // namespace dovetail
