#include "coordinator/embedding.h"

#include <cmath>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/byte_tokenizer.h"
#include "tests/unit/coordinator/engine_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::ByteTokenizer;
using ::testing::_;
using ::testing::Each;
using ::testing::FloatNear;
using ::testing::SizeIs;

class EmbeddingTest : public EngineTest {
 protected:
  void StartService(std::optional<model::Pooling> pooling, EngineOptions options = Options()) {
    options.vocab_size = ByteTokenizer::kVocab;
    workers_ =
        std::make_shared<FakeWorkers>(options.shape, options.vocab_size, options.hidden_size);
    engine_ = std::make_unique<Engine>(options);
    engine_->SetPipeline(workers_->MakePipeline());
    config_.vocab_size = options.vocab_size;
    config_.hidden_size = options.hidden_size;
    config_.pooling = pooling;
    service_ = std::make_unique<EmbeddingService>(&config_, &tokenizer_, engine_.get(),
                                                  options.shape.context_length);
  }
  void TearDown() override {
    service_.reset();
    EngineTest::TearDown();
  }

  absl::StatusOr<Embeddings> Embed(EmbeddingRequest request) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Embeddings>>>();
    service_->Start(std::move(request), [promise](absl::StatusOr<Embeddings> result) {
      promise->set_value(std::move(result));
    });
    return promise->get_future().get();
  }
  absl::StatusOr<Embeddings> EmbedIds(std::vector<int32_t> ids) {
    return Embed({.inputs = {std::move(ids)}});
  }

  // What the fake workers' last norm makes of the last of `tokens`.
  static std::vector<float> Hidden(absl::Span<const int32_t> tokens) {
    std::vector<float> hidden;
    for (int i = 0; i < 4; ++i) hidden.push_back(FakeWorkers::Logit(tokens, i));
    return hidden;
  }
  static std::vector<float> Expected(const std::vector<int32_t>& tokens, model::Pooling pooling) {
    const size_t first = pooling == model::Pooling::kLast ? tokens.size() : 1;
    const size_t last = pooling == model::Pooling::kCls ? 1 : tokens.size();
    std::vector<double> sum(4);
    for (size_t n = first; n <= last; ++n) {
      const std::vector<float> row = Hidden(absl::MakeConstSpan(tokens).first(n));
      for (int i = 0; i < 4; ++i) sum[i] += row[i];
    }
    std::vector<float> vector;
    for (const double s : sum) {
      vector.push_back(static_cast<float>(s / static_cast<double>(last - first + 1)));
    }
    Normalise(&vector);
    return vector;
  }

  model::ModelConfig config_;
  ByteTokenizer tokenizer_;
  std::unique_ptr<EmbeddingService> service_;
};

TEST_F(EmbeddingTest, PoolsAsTheFileSays) {
  const std::vector<int32_t> ids = Prompt(75);  // several chunks
  for (const model::Pooling pooling :
       {model::Pooling::kMean, model::Pooling::kCls, model::Pooling::kLast}) {
    StartService(pooling);
    ASSERT_OK_AND_ASSIGN(const Embeddings made, EmbedIds(ids));
    ASSERT_THAT(made.vectors, SizeIs(1));
    EXPECT_EQ(made.vectors[0], Expected(ids, pooling)) << static_cast<int>(pooling);
    EXPECT_EQ(made.prompt_tokens, 75);
    ExpectAllFree();
    TearDown();
  }
  StartService({});
  ASSERT_OK_AND_ASSIGN(const Embeddings made, EmbedIds(ids));
  EXPECT_EQ(made.vectors[0], Expected(ids, model::Pooling::kLast));
}

TEST_F(EmbeddingTest, LastTokenAloneReadsWhatIsCached) {
  StartService(model::Pooling::kLast);
  ASSERT_OK(EmbedIds(Prompt(75)).status());
  const int rows = workers_->num_rows();
  ASSERT_OK_AND_ASSIGN(const Embeddings again, EmbedIds(Prompt(75)));
  EXPECT_LE(workers_->num_rows() - rows, kKvBlockTokens);
  EXPECT_EQ(again.vectors[0], Expected(Prompt(75), model::Pooling::kLast));
}

TEST_F(EmbeddingTest, ManyTextsAtATime) {
  StartService(model::Pooling::kMean);
  EmbeddingRequest request;
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 60; ++i) {
    std::vector<int32_t> ids = Prompt(1 + i * 7 % 40, i);
    expected.push_back(Expected(ids, model::Pooling::kMean));
    request.inputs.emplace_back(std::move(ids));
  }
  ASSERT_OK_AND_ASSIGN(const Embeddings made, Embed(std::move(request)));
  EXPECT_EQ(made.vectors, expected);
  ExpectAllFree();
}

TEST_F(EmbeddingTest, TextsAreTokenisedWithTheirSpecialTokens) {
  StartService({});
  ASSERT_OK_AND_ASSIGN(const Embeddings made,
                       Embed({.inputs = {std::string("ab<user>"), std::string("ab")}}));
  std::vector<int32_t> ids = {ByteTokenizer::kBos, 'a', 'b'};
  EXPECT_EQ(made.vectors[1], Expected(ids, model::Pooling::kLast));
  EXPECT_EQ(made.prompt_tokens, 9 + 3);  // "<user>" is no special token in a text
  for (const std::vector<float>& vector : made.vectors) {
    double length = 0;
    for (const float x : vector) length += double{x} * x;
    EXPECT_NEAR(length, 1, 1e-6);
  }
}

TEST_F(EmbeddingTest, MistakesNameTheInput) {
  StartService({});
  const auto error = [&](EmbeddingRequest request) { return Embed(std::move(request)).status(); };
  const auto invalid = [](const std::string& text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  EXPECT_THAT(error({.inputs = {std::string()}}), invalid("`input` must not be empty"));
  EXPECT_THAT(error({.inputs = {std::string("a"), std::vector<int32_t>()}}),
              invalid("`input[1]` must not be empty"));
  EXPECT_THAT(error({.inputs = {std::vector<int32_t>{1, 260}}}),
              invalid("`input` has token id 260; the vocabulary has ids 0 to 259"));
  EXPECT_THAT(error({.inputs = {std::string("\xff")}}), invalid("`input`: byte 0 is not UTF-8"));
  EXPECT_THAT(error({.inputs = {std::string("a"), std::string(200, 'x')}}),
              invalid("`input[1]` is too long: this model's maximum context length is 200 tokens; "
                      "it has 201 tokens"));
  EXPECT_OK(Embed({.inputs = {std::string(200, 'x')}, .truncate = true}).status());
  service_->StopAccepting();
  EXPECT_THAT(error({.inputs = {std::string("a")}}), StatusIs(absl::StatusCode::kUnavailable, _));
  service_.reset();
  ExpectAllFree();
  TearDown();
  for (const model::Pooling pooling : {model::Pooling::kNone, model::Pooling::kRank}) {
    StartService(pooling);
    EXPECT_THAT(error({.inputs = {std::string("a")}}), invalid("this model makes no embeddings"));
    TearDown();
  }
}

TEST_F(EmbeddingTest, ACancelledCallFreesItsBlocks) {
  StartService({});
  workers_->Hold();
  EmbeddingRequest request;
  for (int i = 0; i < 20; ++i) request.inputs.emplace_back(Prompt(20, i));
  std::promise<absl::Status> ended;
  const uint64_t id = service_->Start(std::move(request), [&](absl::StatusOr<Embeddings> result) {
    ended.set_value(result.status());
  });
  ASSERT_TRUE(workers_->WaitForSteps(1));
  service_->Cancel(id);
  EXPECT_THAT(ended.get_future().get(), StatusIs(absl::StatusCode::kCancelled, _));
  workers_->Release(1000);
  ExpectAllFree();
  service_->Cancel(id);  // has ended: nothing happens
  EXPECT_OK(EmbedIds(Prompt(5)).status());
}

TEST_F(EmbeddingTest, EndsWithTheService) {
  StartService({});
  workers_->Hold();
  std::promise<absl::Status> ended;
  service_->Start({.inputs = {Prompt(5)}},
                  [&](absl::StatusOr<Embeddings> result) { ended.set_value(result.status()); });
  ASSERT_TRUE(workers_->WaitForSteps(1));
  service_.reset();
  EXPECT_THAT(ended.get_future().get(), StatusIs(absl::StatusCode::kCancelled, _));
  workers_->Release(1000);
}

TEST_F(EmbeddingTest, AFullQueueIsWaitedOutByThoseInIt) {
  EngineOptions options = Options();
  options.max_queue = 2;
  StartService({}, options);
  EmbeddingRequest request;
  for (int i = 0; i < 30; ++i) request.inputs.emplace_back(Prompt(20, i));
  EXPECT_OK(Embed(std::move(request)).status());
}

TEST(Normalise, LeavesZerosAlone) {
  std::vector<float> zeros(3), some = {3, 0, -4};
  Normalise(&zeros);
  EXPECT_THAT(zeros, Each(0));
  Normalise(&some);
  EXPECT_THAT(some, ElementsAre(FloatNear(0.6f, 1e-7f), 0, FloatNear(-0.8f, 1e-7f)));
}

}  // namespace
}  // namespace dovetail::coordinator
