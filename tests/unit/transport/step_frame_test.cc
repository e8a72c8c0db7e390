#include "transport/step_frame.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"
#include "memory_channel.h"
#include "model/memory_plan.h"
#include "step_frame_testing.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "transport/exchange.h"

namespace dovetail::transport {
namespace {

using testing::FrameAndRows;
using testing::FrameMaker;
using ::testing::HasSubstr;
using testing::kEpoch;
using testing::kHiddenSize;
using testing::kRow;
using testing::kVocabSize;
using testing::MemoryReceiver;
using testing::MemorySender;
using testing::RowsRoom;
using testing::SmallShape;
using testing::StatusIs;

constexpr absl::Duration kLong = absl::Seconds(60);

template <typename T>
void ExpectSameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  if (a.empty()) return;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)), 0);
}

template <typename T>
void ExpectBeginsWith(const std::vector<T>& all, const std::vector<T>& first) {
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
}

void ExpectSame(const StepFrame& a, const StepFrame& b) {
  EXPECT_EQ(std::memcmp(&a.header, &b.header, sizeof(StepHeader)), 0);
  ExpectSameBytes(a.sequences, b.sequences);
  EXPECT_EQ(a.copies, b.copies);
  EXPECT_EQ(a.segment_us, b.segment_us);
  EXPECT_EQ(a.block_ids, b.block_ids);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logit_rows, b.logit_rows);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.adjustments, b.adjustments);
  EXPECT_EQ(a.masks, b.masks);
}

ExchangeSpec Loop(uint64_t ring_bytes) {
  return ExchangeSpec{.epoch = kEpoch,
                      .endpoints = {kCoordinator, "cpu:0"},
                      .edges = {{kCoordinator, "cpu:0"}},
                      .ring_bytes = ring_bytes};
}

TEST(StepFrame, RoundTripsThroughARing) {
  constexpr int kFrames = 300;
  const uint64_t seed = testing::TestSeed();
  auto exchange = Exchange::CreateInProcess(Loop(4096));
  auto sender = *exchange->Sender(kCoordinator, "cpu:0");
  auto receiver = *exchange->Receiver(kCoordinator, "cpu:0");
  std::thread sending([&] {
    FrameMaker maker(seed);
    for (int i = 0; i < kFrames; ++i) {
      const FrameAndRows sent = maker.Next();
      EXPECT_OK(SendStep(*sender, sent.frame, sent.rows(), kLong));
      EXPECT_OK(SendOutput(*sender, maker.NextOutput(), kLong));
    }
  });
  FrameMaker maker(seed);
  StepFrame got;
  StepOutput got_output;
  RowsRoom room;
  for (int i = 0; i < kFrames; ++i) {
    const FrameAndRows sent = maker.Next();
    EXPECT_OK(ReceiveStep(*receiver, SmallShape(), kRow, kEpoch, &got, room.span(), kLong));
    ExpectSame(got, sent.frame);
    ExpectBeginsWith(room.hidden, sent.hidden);
    ExpectBeginsWith(room.slot_experts, sent.slot_experts);
    ExpectBeginsWith(room.slot_weights, sent.slot_weights);
    ExpectBeginsWith(room.partials, sent.partials);
    const StepOutput sent_output = maker.NextOutput();
    EXPECT_OK(ReceiveOutput(*receiver, SmallShape(), kEpoch, kVocabSize, kHiddenSize, &got_output,
                            kLong));
    EXPECT_EQ(got_output.header.step, sent_output.header.step);
    ExpectSameBytes(got_output.sequences, sent_output.sequences);
    ExpectSameBytes(got_output.logprobs, sent_output.logprobs);
    ExpectSameBytes(got_output.logits, sent_output.logits);
    ExpectSameBytes(got_output.hidden, sent_output.hidden);
  }
  sending.join();
}

TEST(StepFrame, PartialsMayComeLater) {
  auto exchange = Exchange::CreateInProcess(Loop(1 << 16));
  auto sender = *exchange->Sender(kCoordinator, "cpu:0");
  auto receiver = *exchange->Receiver(kCoordinator, "cpu:0");
  FrameMaker maker(testing::TestSeed());
  int with_partials = 0;
  for (int i = 0; i < 50; ++i) {
    const FrameAndRows sent = maker.Next();
    ASSERT_OK(SendStepAhead(*sender, sent.frame, sent.rows(), kLong));
    StepFrame got;
    RowsRoom room;
    ComingPartials partials;
    ASSERT_OK(ReceiveStepAhead(*receiver, SmallShape(), kRow, kEpoch, &got, room.span(), kLong,
                               &partials));
    ExpectSame(got, sent.frame);
    ExpectBeginsWith(room.hidden, sent.hidden);
    ExpectBeginsWith(room.slot_experts, sent.slot_experts);
    ExpectBeginsWith(room.slot_weights, sent.slot_weights);
    EXPECT_EQ(room.partials, RowsRoom().partials) << "they are not sent";
    ASSERT_OK(SendPartials(*sender, sent.partials, kLong));
    for (int times = 0; times < 2; ++times) ASSERT_OK(partials.Receive());
    ExpectBeginsWith(room.partials, sent.partials);
    EXPECT_FALSE(receiver->Ready());
    with_partials += sent.partials.empty() ? 0 : 1;
  }
  EXPECT_GT(with_partials, 0);
}

TEST(StepFrame, ReturnsToItsBeginningWhenCleared) {
  FrameAndRows made = FrameMaker(1).Next();
  made.frame.Clear();
  EXPECT_EQ(made.frame.header.num_rows, 0u);
  EXPECT_TRUE(made.frame.sequences.empty() && made.frame.block_ids.empty() &&
              made.frame.tokens.empty() && made.frame.logit_rows.empty() &&
              made.frame.targets.empty() && made.frame.adjustments.empty() &&
              made.frame.masks.empty());
}

TEST(StepFrame, MaximaHoldEveryFrame) {
  FrameMaker maker(testing::TestSeed());
  for (int i = 0; i < 100; ++i) {
    MemorySender sender;
    const FrameAndRows made = maker.Next();
    ASSERT_OK(SendStep(sender, made.frame, made.rows(), kLong));
    EXPECT_LE(sender.message().size(),
              MaxStepBytes(SmallShape(), kRow, made.frame.header.slot_rows > 0));
    ASSERT_OK(SendOutput(sender, maker.NextOutput(), kLong));
    EXPECT_LE(sender.message().size(), MaxOutputBytes(SmallShape(), kVocabSize, kHiddenSize));
  }
}

TEST(StepFrame, MaximaAreThoseOfTheMemoryPlan) {
  StepShape shape = SmallShape();
  const auto bytes = [&] {
    return static_cast<int64_t>(MaxStepBytes(shape, {}, false) + MaxOutputBytes(shape, 0, 0));
  };
  EXPECT_EQ(bytes(), model::FrameBytes(shape));
  shape.vocab_size = 129280;
  shape.context_length = 1 << 17;
  shape.max_sequences = 64;
  EXPECT_EQ(bytes(), model::FrameBytes(shape));
}

TEST(StepOutput, RowsMayLieApart) {
  StepOutput output;
  output.header.epoch = kEpoch;
  output.header.num_sequences = 1;
  output.header.num_logit_rows = 3;
  output.header.vocab_size = kVocabSize;
  output.header.num_logprobs = 2;
  output.sequences = {{.sequence_id = 4,
                       .token = 2,
                       .num_logit_rows = 3,
                       .num_logprob_rows = 1,
                       .num_top_logprobs = 1}};
  output.logprobs = {{2, -0.5f}, {7, -0.25f}};
  output.segment_us = {7, 8};
  output.header.num_segment_times = 2;
  for (int i = 0; i < 3 * kVocabSize; ++i) output.logits.push_back(static_cast<float>(i));
  MemorySender together, apart;
  ASSERT_OK(SendOutput(together, output, kLong));
  std::vector<std::vector<float>> rows;
  std::vector<const float*> pointers;
  for (int i = 0; i < 3; ++i) {
    rows.emplace_back(output.logits.begin() + i * kVocabSize,
                      output.logits.begin() + (i + 1) * kVocabSize);
  }
  for (const std::vector<float>& row : rows) pointers.push_back(row.data());
  std::vector<ConstBytes> pieces;
  ASSERT_OK(SendOutputRows(apart, output.header, output.sequences, output.logprobs,
                           output.segment_us, pointers, {}, &pieces, kLong));
  EXPECT_EQ(apart.message(), together.message());
}

// A message in the middle of the route, taken apart so that single fields can be spoiled.
class SpoiledFrame : public ::testing::Test {
 protected:
  void SetUp() override {
    frame_.header.epoch = kEpoch;
    frame_.header.num_sequences = 2;
    frame_.header.num_rows = 4;
    frame_.header.num_block_ids = 3;
    frame_.header.num_logit_rows = 2;
    frame_.header.num_adjustments = 2;
    frame_.header.num_masks = 1;
    frame_.header.num_copies = 2;
    frame_.header.num_segment_times = 1;
    frame_.copies = {{1, 2}, {2, 29}};
    frame_.segment_us = {40};
    frame_.header.hidden_rows = 4;
    frame_.header.hidden_size = kHiddenSize;
    SequenceStep a;
    a.num_rows = 3;
    a.position = 30;
    a.num_blocks = 2;
    a.num_logit_rows = 1;
    a.num_adjustments = 2;
    a.flags = SequenceStep::kSample | SequenceStep::kMasked;
    SequenceStep b;
    b.num_rows = 1;
    b.num_blocks = 1;
    b.num_logit_rows = 1;
    b.flags = SequenceStep::kReturnLogits | SequenceStep::kLogprobs;
    b.num_top_logprobs = 3;
    frame_.sequences = {a, b};
    frame_.block_ids = {0, 29, 5};
    frame_.tokens = {1, 2, 3, 4};
    frame_.logit_rows = {2, 3};
    frame_.targets = {-1, 7};
    frame_.adjustments = {{.token = 3, .bias = -1.0f}, {.token = 9, .bias = -HUGE_VALF}};
    frame_.masks.assign(MaskWords(kVocabSize), 5);
    frame_.header.slot_rows = 4;
    frame_.header.partial_rows = 5;
    made_.hidden.resize(size_t{4} * kHiddenSize);
    made_.slot_experts = {0, 1, 2, 8, 0, 3, 1, 5, 7, 4, 3, 2};
    made_.slot_weights.resize(size_t{4} * kRow.slots());
    made_.partials.resize(size_t{5} * kHiddenSize);
    ASSERT_OK(Receive(Bytes()));
  }

  std::vector<uint8_t> Bytes() const {
    MemorySender sender;
    EXPECT_OK(SendStep(sender, frame_, made_.rows(), kLong));
    return sender.message();
  }
  absl::Status Receive(std::vector<uint8_t> bytes, const RowShape& row = kRow,
                       const StepShape& shape = SmallShape()) {
    MemoryReceiver receiver(std::move(bytes));
    StepFrame got;
    RowsRoom room;
    const absl::Status status = ReceiveStep(receiver, shape, row, kEpoch, &got, room.span(), kLong);
    EXPECT_TRUE(receiver.ended());
    return status;
  }
  template <typename Change>
  absl::Status WithHeader(Change change) {
    std::vector<uint8_t> bytes = Bytes();
    StepHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    change(header);
    std::memcpy(bytes.data(), &header, sizeof(header));
    return Receive(std::move(bytes));
  }
  template <typename Change>
  absl::Status WithFrame(Change change) {
    const StepFrame saved = frame_;
    change(frame_);
    const absl::Status status = Receive(Bytes());
    frame_ = saved;
    return status;
  }

  template <typename Change>
  absl::Status WithRows(Change change) {
    const FrameAndRows saved = made_;
    change(made_);
    const absl::Status status = Receive(Bytes());
    made_ = saved;
    return status;
  }

  StepFrame frame_;
  FrameAndRows made_;  // its rows
};

#define EXPECT_MALFORMED(status, text) \
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, HasSubstr(text)))

TEST_F(SpoiledFrame, IsRefusedForItsHeader) {
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.magic = kOutputMagic; }), "magic");
  EXPECT_THAT(WithHeader([](StepHeader& h) { h.epoch = kEpoch - 1; }),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("epoch 8, this is epoch 9")));
  for (const uint32_t count : {0u, 1000u, 0x80000000u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_sequences = count; }), "num_sequences");
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_rows = count; }), "num_rows");
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_block_ids = count; }), "num_block_ids");
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.hidden_size = count; }), "hidden_size");
  }
  for (const uint32_t count : {5u, 21u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_logit_rows = count; }),
                     "num_logit_rows");
  }
  for (const uint32_t count : {1u, 5u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.hidden_rows = count; }), "hidden_rows");
  }
  // Possible alone, but not with this many bytes.
  EXPECT_MALFORMED(
      WithHeader([](StepHeader& h) { h.hidden_rows = h.slot_rows = h.partial_rows = 0; }),
      "message has");
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.num_block_ids = 4; }), "message has");
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.num_sequences = 3; }), "message has");
}

TEST_F(SpoiledFrame, IsRefusedForItsLength) {
  std::vector<uint8_t> bytes = Bytes();
  bytes.push_back(0);
  EXPECT_MALFORMED(Receive(bytes), "message has");
  for (const size_t size : {bytes.size() - 2, sizeof(StepHeader), size_t{5}, size_t{0}}) {
    bytes.resize(size);
    EXPECT_MALFORMED(Receive(bytes), "malformed frame");
  }
}

TEST_F(SpoiledFrame, IsRefusedForASequence) {
  auto with = [this](auto change) {
    return WithFrame([&](StepFrame& f) { change(f.sequences[0]); });
  };
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_rows = 0; }), "sequence 0");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_rows = -3; }), "num_rows is -3");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_rows = 5; }), "num_rows is 5");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_rows = 2; }), "sequence 0: ");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.position = -1; }), "position is -1");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.position = 198; }), "position + num_rows is 201");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.position = INT32_MAX; }), "position is");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.position = 62; }), "num_blocks is 2");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_blocks = 1; }), "num_blocks is 1");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_blocks = 8; }), "num_blocks is 8");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_blocks = 4; }), "num_blocks is 4");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_blocks = 3; }), "sequence 1: ");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_logit_rows = -1; }), "num_logit_rows is -1");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_logit_rows = 4; }), "num_logit_rows is 4");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_logit_rows = 0; }), "lack the last row");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.num_logit_rows = 2; }), "logit row is 3");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.flags = 16; }), "flags are 16");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.reserved = 1; }), "reserved");
  EXPECT_MALFORMED(with([](SequenceStep& s) { s.sampling.reserved = 1; }), "reserved");
}

TEST_F(SpoiledFrame, IsRefusedForItsDraw) {
  for (const uint32_t count : {13u + 6u * 700u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_adjustments = count; }),
                     "num_adjustments");
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.num_masks = count; }), "num_masks");
  }
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.num_masks = 0; }), "message has");
  StepShape without_masks = SmallShape();
  without_masks.vocab_size = 0;
  EXPECT_MALFORMED(Receive(Bytes(), kRow, without_masks), "num_masks is 1");
  auto with = [this](int i, auto change) {
    return WithFrame([&](StepFrame& f) { change(f.sequences[i]); });
  };
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.num_adjustments = 3; }), "num_adjustments is 3");
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.num_adjustments = -1; }),
                   "num_adjustments is -1");
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.num_adjustments = 1; }), "add up to 1");
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.flags = SequenceStep::kSample; }), "0 masks");
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.flags |= SequenceStep::kReturnLogits; }),
                   "logits of a sequence with adjustments");
  EXPECT_MALFORMED(with(0, [](SequenceStep& s) { s.num_top_logprobs = 1; }),
                   "num_top_logprobs is 1");
  EXPECT_MALFORMED(with(1, [](SequenceStep& s) { s.num_top_logprobs = 21; }),
                   "num_top_logprobs is 21");
  EXPECT_MALFORMED(with(1,
                        [](SequenceStep& s) {
                          s.flags = SequenceStep::kMasked;
                          s.num_top_logprobs = 0;
                        }),
                   "masks are too few");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.targets[0] = -2; }), "target is -2");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.adjustments[0].token = -2; }), "token is -2");
  for (const float bad : {0.0f, -1.0f, std::nanf(""), HUGE_VALF}) {
    EXPECT_MALFORMED(WithFrame([=](StepFrame& f) { f.adjustments[1].scale = bad; }), "scale");
  }
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    EXPECT_MALFORMED(WithFrame([=](StepFrame& f) { f.adjustments[1].bias = bad; }), "bias");
  }
}

TEST_F(SpoiledFrame, IsRefusedForSamplingOutOfRange) {
  auto with = [this](auto change) {
    return WithFrame([&](StepFrame& f) { change(f.sequences[1].sampling); });
  };
  for (const float bad : {-0.5f, std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    EXPECT_MALFORMED(with([=](SamplingParams& p) { p.temperature = bad; }), "temperature");
    EXPECT_MALFORMED(with([=](SamplingParams& p) { p.top_p = bad; }), "top_p");
    EXPECT_MALFORMED(with([=](SamplingParams& p) { p.min_p = bad; }), "min_p");
  }
  EXPECT_MALFORMED(with([](SamplingParams& p) { p.top_p = 0.0f; }), "top_p");
  EXPECT_MALFORMED(with([](SamplingParams& p) { p.top_p = 1.5f; }), "top_p");
  EXPECT_MALFORMED(with([](SamplingParams& p) { p.min_p = 1.5f; }), "min_p");
  EXPECT_MALFORMED(with([](SamplingParams& p) { p.top_k = -1; }), "top_k is -1");
}

TEST_F(SpoiledFrame, IsRefusedForItsArrays) {
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.block_ids[1] = 30; }), "block id is 30");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.block_ids[2] = -1; }), "block id is -1");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.copies[0].from = -1; }), "copied block is -1");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.copies[0].from = 30; }), "copied block is 30");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.copies[1].to = 30; }), "copied to is 30");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.copies[1].to = 2; }), "of block 2 to itself");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.tokens[3] = -1; }), "token is -1");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.logit_rows[1] = 4; }), "logit row is 4");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.logit_rows[0] = -1; }), "logit row is -1");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.logit_rows[1] = 2; }), "logit row is 2");
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) { f.logit_rows[0] = 1; }), "lack the last row");
  // Descending within one sequence.
  EXPECT_MALFORMED(WithFrame([](StepFrame& f) {
                     f.sequences[0].num_logit_rows = 2;
                     f.sequences[1].num_logit_rows = 0;
                     f.logit_rows = {2, 1};
                   }),
                   "logit row is 1");
}

TEST_F(SpoiledFrame, IsRefusedWhenItsRowsDoNotFit) {
  const auto receive = [&](const auto& shrink) {
    MemoryReceiver receiver(Bytes());
    StepFrame got;
    RowsRoom room;
    shrink(room);
    return ReceiveStep(receiver, SmallShape(), kRow, kEpoch, &got, room.span(), kLong);
  };
  EXPECT_MALFORMED(receive([](RowsRoom& r) { r.hidden.resize(size_t{3} * kHiddenSize); }),
                   "hidden_rows of 4 x 12 values do not fit in 36");
  EXPECT_MALFORMED(receive([](RowsRoom& r) { r.slot_experts.resize(11); }),
                   "slot_rows of 4 x 3 values do not fit in 11");
  EXPECT_MALFORMED(receive([](RowsRoom& r) { r.slot_weights.clear(); }),
                   "slot_rows of 4 x 4 values do not fit in 0");
  EXPECT_MALFORMED(receive([](RowsRoom& r) { r.partials.resize(59); }),
                   "partial_rows of 5 x 12 values do not fit in 59");
}

TEST_F(SpoiledFrame, IsRefusedForItsSlots) {
  for (const uint32_t count : {0u, 1u, 5u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.slot_rows = count; }), "_rows is ");
  }
  for (const uint32_t count : {17u, 0x80000000u, 0xffffffffu}) {
    EXPECT_MALFORMED(WithHeader([=](StepHeader& h) { h.partial_rows = count; }), "partial_rows is");
  }
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.partial_rows = 4; }), "message has");
  // Slots without all rows, and slots of a model without experts.
  EXPECT_MALFORMED(WithHeader([](StepHeader& h) { h.hidden_rows = 2; }), "slot_rows is 4");
  EXPECT_MALFORMED(Receive(Bytes(), {.hidden_size = kHiddenSize}), "slot_rows is 4");
  EXPECT_MALFORMED(WithRows([](FrameAndRows& m) { m.slot_experts[5] = 9; }), "expert is 9");
  EXPECT_MALFORMED(WithRows([](FrameAndRows& m) { m.slot_experts[0] = -1; }), "expert is -1");
  EXPECT_MALFORMED(WithRows([](FrameAndRows& m) { m.slot_experts[11] = 4; }),
                   "slots of row 3 use expert 4 twice");
}

TEST(StepFrame, SurvivesRandomDamage) {
  const uint64_t seed = testing::TestSeed();
  std::mt19937_64 random(seed);
  FrameMaker maker(seed);
  int refused = 0;
  StepFrame got;
  StepOutput got_output;
  RowsRoom room;
  for (int i = 0; i < 5000; ++i) {
    MemorySender sender;
    const FrameAndRows made = maker.Next();
    ASSERT_OK(SendStep(sender, made.frame, made.rows(), kLong));
    std::vector<uint8_t> bytes = sender.message();
    const size_t values = made.hidden.size() + made.slot_weights.size() + made.partials.size();
    const size_t interesting = bytes.size() - values * sizeof(float);
    for (uint64_t n = 0; n < 1 + random() % 3; ++n) bytes[random() % interesting] = random();
    MemoryReceiver receiver(bytes);
    refused += !ReceiveStep(receiver, SmallShape(), kRow, kEpoch, &got, room.span(), kLong).ok();
    ASSERT_OK(SendOutput(sender, maker.NextOutput(), kLong));
    bytes = sender.message();
    bytes[random() % bytes.size()] = random();
    MemoryReceiver output_receiver(bytes);
    (void)ReceiveOutput(output_receiver, SmallShape(), kEpoch, kVocabSize, kHiddenSize, &got_output,
                        kLong);
  }
  // Much of a frame is free to be anything (ids, seeds, tokens), much is not.
  EXPECT_GT(refused, 1000);
}

class SpoiledOutput : public ::testing::Test {
 protected:
  SpoiledOutput() {
    output_.header.epoch = kEpoch;
    output_.header.num_sequences = 2;
    output_.header.num_logit_rows = 3;
    output_.header.vocab_size = kVocabSize;
    output_.sequences = {{.sequence_id = 1, .token = 49, .num_logit_rows = 1},
                         {.sequence_id = 2, .token = -1, .num_logit_rows = 2}};
    output_.logits.resize(3 * kVocabSize);
  }
  template <typename Change>
  absl::Status With(Change change) {
    MemorySender sender;
    EXPECT_OK(SendOutput(sender, output_, kLong));
    std::vector<uint8_t> bytes = sender.message();
    OutputHeader header;
    SequenceOutput sequences[2];
    if (bytes.size() < sizeof(header) + sizeof(sequences)) {
      return absl::InternalError("the message is too short to be spoiled");
    }
    std::memcpy(&header, bytes.data(), sizeof(header));
    std::memcpy(sequences, bytes.data() + sizeof(header), sizeof(sequences));
    change(header, sequences);
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::memcpy(bytes.data() + sizeof(header), sequences, sizeof(sequences));
    MemoryReceiver receiver(bytes);
    StepOutput got;
    const absl::Status status =
        ReceiveOutput(receiver, SmallShape(), kEpoch, kVocabSize, kHiddenSize, &got, kLong);
    EXPECT_TRUE(receiver.ended());
    return status;
  }
  StepOutput output_;
};

TEST_F(SpoiledOutput, IsRefused) {
  using H = OutputHeader;
  using S = SequenceOutput;
  EXPECT_OK(With([](H&, S*) {}));
  EXPECT_MALFORMED(With([](H& h, S*) { h.magic = kStepMagic; }), "magic");
  EXPECT_THAT(With([](H& h, S*) { h.epoch = 10; }),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("epoch 10")));
  for (const uint32_t count : {7u, 0xffffffffu}) {
    EXPECT_MALFORMED(With([=](H& h, S*) { h.num_sequences = count; }), "num_sequences");
  }
  for (const uint32_t count : {21u, 0xffffffffu}) {
    EXPECT_MALFORMED(With([=](H& h, S*) { h.num_logit_rows = count; }), "num_logit_rows");
  }
  EXPECT_MALFORMED(With([](H& h, S*) { h.num_logit_rows = 2; }), "message has");
  EXPECT_MALFORMED(With([](H& h, S*) { h.num_sequences = 1; }), "message has");
  EXPECT_MALFORMED(With([](H& h, S*) { h.vocab_size = 51; }), "vocab_size is 51");
  EXPECT_MALFORMED(With([](H&, S* s) { s[0].token = 50; }), "token is 50");
  EXPECT_MALFORMED(With([](H&, S* s) { s[1].token = -2; }), "token is -2");
  EXPECT_MALFORMED(With([](H&, S* s) { s[0].num_logit_rows = -1; }), "num_logit_rows is -1");
  EXPECT_MALFORMED(With([](H&, S* s) { s[1].num_logit_rows = 3; }), "num_logit_rows is 3");
  EXPECT_MALFORMED(With([](H&, S* s) { s[1].num_logit_rows = 1; }), "sum of num_logit_rows");
  EXPECT_MALFORMED(With([](H& h, S*) { h.num_hidden_rows = 18; }), "num_hidden_rows is 18");
  EXPECT_MALFORMED(With([](H& h, S*) { h.num_hidden_rows = 1, h.hidden_size = 13; }),
                   "hidden_size is 13");
  EXPECT_MALFORMED(With([](H& h, S*) { h.num_hidden_rows = 1, h.hidden_size = 12; }),
                   "message has");
  EXPECT_MALFORMED(With([](H&, S* s) { s[0].num_hidden_rows = 1; }), "num_hidden_rows is 1");
}

}  // namespace
}  // namespace dovetail::transport
