#include "coordinator/kv_cache.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using transport::BlockCopy;

StepShape Shape(int blocks, int swap) {
  StepShape shape;
  shape.max_rows = 64;
  shape.max_sequences = 4;
  shape.max_logit_rows = 4;
  shape.context_length = 256;
  shape.num_kv_blocks = blocks;
  shape.num_swap_blocks = swap;
  return shape;
}

Sequence MakeSequence(int prompt, int first_token = 0, int max_tokens = 60) {
  Sequence sequence;
  sequence.tokens.resize(prompt);
  std::iota(sequence.tokens.begin(), sequence.tokens.end(), first_token);
  sequence.num_prompt_tokens = prompt;
  sequence.max_total_tokens = prompt + max_tokens;
  KvCache::Reserve(&sequence);
  return sequence;
}

// As if its step came back.
void Compute(Sequence* sequence, KvCache* kv) {
  sequence->num_computed_tokens = sequence->num_tokens();
  kv->Confirm(sequence, sequence->num_tokens());
}

TEST(KvCacheTest, KeepsSpareBlocksFree) {
  KvCache kv(Shape(4, 0));
  Sequence sequence = MakeSequence(70);
  EXPECT_FALSE(kv.Begin(&sequence, 2, {}));
  EXPECT_THAT(sequence.blocks, IsEmpty());
  EXPECT_OK(kv.Audit({&sequence}));
  EXPECT_TRUE(kv.Begin(&sequence, 1, {}));
  EXPECT_EQ(sequence.blocks.size(), 3u);
  EXPECT_EQ(kv.num_queried_tokens(), 70u);
  EXPECT_OK(kv.Audit({&sequence}));
  kv.Drop(&sequence);
  EXPECT_EQ(kv.pool().num_used(), 0);
}

TEST(KvCacheTest, GrowsByABlockWhenTheLastIsFull) {
  KvCache kv(Shape(2, 0));
  Sequence sequence = MakeSequence(31);
  ASSERT_TRUE(kv.Begin(&sequence, 0, {}));
  Compute(&sequence, &kv);
  EXPECT_TRUE(kv.Grow(&sequence));
  EXPECT_EQ(sequence.blocks.size(), 1u);
  sequence.tokens.push_back(1);
  Compute(&sequence, &kv);
  EXPECT_TRUE(kv.Grow(&sequence));
  EXPECT_EQ(sequence.blocks.size(), 2u);
  sequence.num_computed_tokens = 64;
  EXPECT_FALSE(kv.Grow(&sequence));
}

TEST(KvCacheTest, FindsWholeBlocksAndCopiesThePartOfARunningOne) {
  KvCache kv(Shape(8, 0));
  Sequence first = MakeSequence(50);
  ASSERT_TRUE(kv.Begin(&first, 0, {}));
  Compute(&first, &kv);
  first.tokens.push_back(999);
  Sequence second = MakeSequence(50);
  EXPECT_EQ(kv.CountFound(second), 32);
  Sequence* running[] = {&first};
  ASSERT_TRUE(kv.Begin(&second, 0, running));
  EXPECT_EQ(second.num_computed_tokens, 49) << "the last token is computed, for its logits";
  EXPECT_EQ(second.num_cached_tokens, 49);
  EXPECT_EQ(second.blocks[0], first.blocks[0]);
  EXPECT_THAT(kv.pending_copies(), ElementsAre(BlockCopy{first.blocks[1], second.blocks[1]}));
  Sequence other_tail = MakeSequence(40);
  other_tail.tokens[35] = 7;
  ASSERT_TRUE(kv.Begin(&other_tail, 0, running));
  EXPECT_EQ(other_tail.num_computed_tokens, 32) << "three tokens are not worth a copy";
  Sequence salted = MakeSequence(50);
  salted.salt = MakeCacheSalt("another");
  ASSERT_TRUE(kv.Begin(&salted, 0, running));
  EXPECT_EQ(salted.num_computed_tokens, 0);
  EXPECT_OK(kv.Audit({&first, &second, &other_tail, &salted}));
}

TEST(KvCacheTest, SwapsOutAndBackWhatIsNotFoundAnyMore) {
  KvCache kv(Shape(4, 4));
  Sequence sequence = MakeSequence(70);
  ASSERT_TRUE(kv.Begin(&sequence, 0, {}));
  sequence.num_computed_tokens = 69;
  kv.Confirm(&sequence, 69);
  const std::vector<BlockId> blocks = sequence.blocks;
  ASSERT_TRUE(kv.CanSwapOut(sequence));
  kv.SwapOut(&sequence);
  EXPECT_EQ(kv.num_swap_used(), 3);
  EXPECT_EQ(kv.pool().num_used(), 0);
  EXPECT_THAT(kv.pending_copies(), ElementsAre(BlockCopy{blocks[0], 4}, BlockCopy{blocks[1], 5},
                                               BlockCopy{blocks[2], 6}));
  EXPECT_OK(kv.Audit({&sequence}));
  kv.pending_copies().clear();
  Sequence other = MakeSequence(90, 1000);  // takes the place of all but the first block
  ASSERT_TRUE(kv.Begin(&other, 0, {}));
  kv.Drop(&other);
  ASSERT_TRUE(kv.Begin(&sequence, 0, {}));
  EXPECT_EQ(sequence.num_computed_tokens, 69);
  EXPECT_EQ(sequence.blocks[0], blocks[0]) << "found: no copy";
  EXPECT_THAT(kv.pending_copies(),
              ElementsAre(BlockCopy{5, sequence.blocks[1]}, BlockCopy{6, sequence.blocks[2]}));
  EXPECT_EQ(kv.num_swap_used(), 0);
  EXPECT_OK(kv.Audit({&sequence}));
}

TEST(KvCacheTest, DoesNotSwapMoreThanThereIsRoomFor) {
  KvCache kv(Shape(8, 2));
  Sequence sequence = MakeSequence(70);
  ASSERT_TRUE(kv.Begin(&sequence, 0, {}));
  Compute(&sequence, &kv);
  EXPECT_FALSE(kv.CanSwapOut(sequence));
  KvCache none(Shape(8, 0));
  Sequence small = MakeSequence(5);
  ASSERT_TRUE(none.Begin(&small, 0, {}));
  Compute(&small, &none);
  EXPECT_FALSE(none.CanSwapOut(small));
}

TEST(KvCacheTest, AuditsWhatIsHeldTwice) {
  KvCache kv(Shape(4, 2));
  Sequence a = MakeSequence(40);
  ASSERT_TRUE(kv.Begin(&a, 0, {}));
  Sequence thief = MakeSequence(10, 500);
  thief.blocks = {a.blocks[1]};
  EXPECT_FALSE(kv.Audit({&a, &thief}).ok());
  EXPECT_FALSE(kv.Audit({}).ok()) << "leaked";
}

TEST(KvCacheTest, ForgetsEverything) {
  KvCache kv(Shape(4, 2));
  Sequence sequence = MakeSequence(40);
  ASSERT_TRUE(kv.Begin(&sequence, 0, {}));
  Compute(&sequence, &kv);
  kv.SwapOut(&sequence);
  kv.Drop(&sequence);
  EXPECT_EQ(sequence.num_computed_tokens, 0);
  kv.Forget();
  EXPECT_THAT(kv.pending_copies(), IsEmpty());
  EXPECT_EQ(kv.CountFound(sequence), 0);
  EXPECT_OK(kv.Audit({&sequence}));
}

}  // namespace
}  // namespace dovetail::coordinator
