#include "worker/weight_loader.h"

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class WeightLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string dir = ::testing::TempDir() + "weight_loader-XXXXXX";
    ASSERT_NE(mkdtemp(dir.data()), nullptr);
    dir_ = dir;
    MakePlan({});
    options_.worker = "cpu:0";
    options_.weights_path = dir_ + "/weights";
    options_.kv_path = dir_ + "/kv";
    options_.kernels = *kernels::SelectTable("");
    options_.progress = [this](uint64_t done, uint64_t total) {
      EXPECT_GT(done, done_);
      done_ = done;
      total_ = total;
      return true;
    };
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void MakePlan(const testing::TinyLlamaOptions& tiny) {
    plan_.model_path = dir_ + "/model.gguf";
    testing::WriteTinyLlama(plan_.model_path, tiny);
    auto file = model::GgufFile::Open(plan_.model_path);
    ASSERT_OK(file);
    plan_.model_fingerprint = (*file)->fingerprint();
    plan_.step_shape = {.max_rows = 8,
                        .max_sequences = 2,
                        .max_logit_rows = 8,
                        .context_length = 64,
                        .num_kv_blocks = 4,
                        .kv_type = KvType::kF16};
    auto config = model::LoadModelConfig(**file);
    ASSERT_OK(config);
    const std::vector<Op> ops = model::OpsOf(*config);
    plan_.route = {{"cpu:0", {ops.begin(), ops.begin() + 3}},
                   {"cpu:1", {ops.begin() + 3, ops.end()}}};
  }

  std::string dir_;
  transport::WorkerPlan plan_;
  LoadOptions options_;
  ThreadPool pool_{2, {}};
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

TEST_F(WeightLoaderTest, PacksWhatTheWorkerOwns) {
  ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(store->reattached);
  EXPECT_EQ(done_, total_);
  EXPECT_EQ(store->ops.size(), 3u);

  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(plan_.model_path));
  // Only its own tensors' bytes are counted: embedding and the nine of layer 0.
  uint64_t own = 0;
  for (const auto& tensor : file->tensors()) {
    if (tensor.name == "token_embd.weight" || tensor.name.rfind("blk.0.", 0) == 0) {
      own += static_cast<uint64_t>(tensor.bytes);
    }
  }
  EXPECT_EQ(total_, own);

  const auto& embedding = store->SlotOf({OpKind::kEmbedding}, model::WeightRole::kEmbedding);
  const auto raw = file->Data(*file->FindTensor("token_embd.weight"));
  EXPECT_EQ(std::memcmp(store->DataOf(embedding), raw.data(), raw.size()), 0);
  const auto norm = file->Data(*file->FindTensor("blk.0.ffn_norm.weight"));
  EXPECT_EQ(std::memcmp(store->VectorOf({OpKind::kMlp, 0}, model::WeightRole::kMlpNorm),
                        norm.data(), norm.size()),
            0);
  // One attention layer, 4 blocks.
  EXPECT_EQ(store->kv->bytes(), 4u * model::KvBytesPerBlockPerLayer(store->config, KvType::kF16));
}

// The tensor is read once and there once, whatever the kernels make of it.
TEST_F(WeightLoaderTest, TiedEmbeddingsAreLoadedOnce) {
  MakePlan({.type = WeightType::kQ8_0, .tied = true});
  std::vector<Op>& ops = plan_.route[0].ops;
  ops.insert(ops.end(), plan_.route[1].ops.begin(), plan_.route[1].ops.end());
  plan_.route.pop_back();
  options_.weights_path = options_.kv_path = "";
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(plan_.model_path));
  uint64_t all = 0;
  for (const auto& tensor : file->tensors()) all += static_cast<uint64_t>(tensor.bytes);
  const model::GgufTensor& tensor = *file->FindTensor("token_embd.weight");
  for (const kernels::KernelTable* kernels : kernels::AvailableTables()) {
    options_.kernels = kernels;
    done_ = 0;
    ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
    EXPECT_EQ(done_, all);
    EXPECT_EQ(total_, all);
    EXPECT_LT(store->weight_bytes(), all + 64 * store->slots.size());
    const auto& embedding = store->SlotOf({OpKind::kEmbedding}, model::WeightRole::kEmbedding);
    const auto& head = store->SlotOf({OpKind::kLmHead}, model::WeightRole::kLmHead);
    ASSERT_EQ(store->DataOf(embedding), store->DataOf(head));
    std::vector<uint8_t> packed(static_cast<size_t>(head.bytes));
    kernels->pack(tensor.type, file->Data(tensor).data(), 320, 64, 0, 320, packed.data());
    EXPECT_EQ(std::memcmp(store->DataOf(embedding), packed.data(), packed.size()), 0);
  }
}

// Threads and slices must not show in what is packed.
TEST_F(WeightLoaderTest, PackedBytesAreThoseOfOneThread) {
  MakePlan({.hidden = 256, .ffn = 512, .type = WeightType::kQ6_K});
  ASSERT_OK_AND_ASSIGN(const auto two, LoadWeights(plan_, options_, &pool_));
  options_.weights_path += "1";
  options_.kv_path += "1";
  done_ = 0;
  ThreadPool single(1, {});
  ASSERT_OK_AND_ASSIGN(const auto one, LoadWeights(plan_, options_, &single));
  ASSERT_EQ(one->weight_bytes(), two->weight_bytes());
  EXPECT_EQ(std::memcmp(one->weights->data(), two->weights->data(), one->weight_bytes()), 0);
}

// A range of experts has the bytes that these experts have among all, biases aside.
TEST_F(WeightLoaderTest, RangesOfExpertsAreThoseExperts) {
  MakePlan({.hidden = 64, .ffn = 96, .experts = 5, .type = WeightType::kQ8_0});
  constexpr Op kAll = {OpKind::kExperts, 0, 0, 5}, kSome = {OpKind::kExperts, 0, 2, 4};
  const Route rest = {{"cpu:1", {{OpKind::kEmbedding}}}};
  const auto load = [&](const Op& op, const std::string& suffix) {
    plan_.route = rest;
    plan_.route.push_back({"cpu:0", {op}});
    options_.weights_path = dir_ + "/weights" + suffix;
    done_ = 0;
    return LoadWeights(plan_, options_, &pool_);
  };
  ASSERT_OK_AND_ASSIGN(const auto all, load(kAll, "all"));
  ASSERT_OK_AND_ASSIGN(auto some, load(kSome, "some"));
  for (const auto role : {model::WeightRole::kExpertGate, model::WeightRole::kExpertUp,
                          model::WeightRole::kExpertDown}) {
    const model::WeightSlot& whole = all->SlotOf(kAll, role);
    const model::WeightSlot& part = some->SlotOf(kSome, role);
    ASSERT_EQ(part.bytes, whole.bytes / 5 * 2);
    EXPECT_EQ(std::memcmp(some->DataOf(part), all->DataOf(whole) + whole.bytes / 5 * 2, part.bytes),
              0);
  }
  // As many other experts are other weights: nothing is taken for what it is not.
  some.reset();
  ASSERT_OK_AND_ASSIGN(const auto others, load({OpKind::kExperts, 0, 1, 3}, "some"));
  EXPECT_FALSE(others->reattached);
}

TEST_F(WeightLoaderTest, FindsItsSegmentsAgain) {
  ASSERT_OK(LoadWeights(plan_, options_, &pool_));
  done_ = 0;
  {
    ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
    EXPECT_TRUE(store->reattached);
    EXPECT_EQ(done_, 0u) << "nothing is read again";
    store->kv->data()[5] = 77;
  }
  {
    ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
    EXPECT_EQ(store->kv->data()[5], 77) << "the KV cache outlives its owner";
  }
  // Another share of the same file is another segment.
  std::swap(plan_.route[0].worker, plan_.route[1].worker);
  ASSERT_OK_AND_ASSIGN(const auto other, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(other->reattached);
}

TEST_F(WeightLoaderTest, KeepsWhatIsItsOwn) {
  options_.weights_path = options_.kv_path = "";
  ASSERT_OK_AND_ASSIGN(auto store, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(store->reattached);
  const uint8_t* const weights = store->weights->data();
  done_ = 0;
  ASSERT_OK_AND_ASSIGN(store, LoadWeights(plan_, options_, &pool_, std::move(store)));
  EXPECT_TRUE(store->reattached);
  EXPECT_EQ(store->weights->data(), weights);
  EXPECT_EQ(done_, 0u) << "nothing is read again";
  // Another share needs other weights.
  std::swap(plan_.route[0].worker, plan_.route[1].worker);
  ASSERT_OK_AND_ASSIGN(store, LoadWeights(plan_, options_, &pool_, std::move(store)));
  EXPECT_FALSE(store->reattached);
  EXPECT_EQ(done_, total_);
}

TEST_F(WeightLoaderTest, WhatIsNotCompleteIsNotKept) {
  options_.weights_path = options_.kv_path = "";
  ASSERT_OK_AND_ASSIGN(auto half, Memory::Open("", 1, 4096));
  ASSERT_OK_AND_ASSIGN(const auto again, Memory::Open("", 1, 4096, std::move(half)));
  EXPECT_FALSE(again->was_complete());
}

// Matrices stay where the file has them, those of a range of experts too; vectors are copied.
TEST_F(WeightLoaderTest, MatricesStayInTheFile) {
  MakePlan({.hidden = 64, .ffn = 96, .experts = 5, .type = WeightType::kQ8_0});
  constexpr Op kSome = {OpKind::kExperts, 0, 2, 4};
  plan_.route = {{"cpu:0", {{OpKind::kEmbedding}, {OpKind::kAttention, 0}, kSome}}};
  options_.in_place = true;
  options_.progress = nullptr;
  ASSERT_OK_AND_ASSIGN(auto store, LoadWeights(plan_, options_, &pool_));
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(plan_.model_path));
  for (const model::WeightSlot& slot : store->slots) {
    const auto stored = file->Data(*file->FindTensor(slot.spec.tensor));
    const bool of_experts = slot.spec.experts > 0;
    const size_t skipped = of_experts ? stored.size() / 5 * 2 : 0;
    const auto bytes = static_cast<size_t>(slot.stored_bytes);
    EXPECT_EQ(std::memcmp(store->DataOf(slot), stored.data() + skipped, bytes), 0)
        << slot.spec.tensor;
    const uint8_t* own = store->weights->data();
    const bool copied =
        store->DataOf(slot) >= own && store->DataOf(slot) < own + store->weight_bytes();
    EXPECT_EQ(copied, slot.spec.is_vector) << slot.spec.tensor;
  }
  const Linear third =
      store->ExpertsOf(kSome, model::WeightRole::kExpertDown, model::WeightRole::kExpertDownBias)
          .At(1);
  EXPECT_TRUE(third.in_place);
  const auto down = file->Data(*file->FindTensor("blk.0.ffn_down_exps.weight"));
  EXPECT_EQ(std::memcmp(third.weight, down.data() + down.size() / 5 * 3, down.size() / 5), 0);
  EXPECT_LT(store->weight_bytes(), 4096u);
  // Packed ones are other weights.
  store.reset();
  options_.in_place = false;
  ASSERT_OK_AND_ASSIGN(store, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(store->reattached);
  EXPECT_EQ(store->file, nullptr);
}

TEST_F(WeightLoaderTest, AnotherLayoutIsAnotherSegment) {
  ASSERT_OK(LoadWeights(plan_, options_, &pool_));
  options_.kernels = kernels::FindTable(kernels::Isa::kScalar);
  done_ = 0;
  if (options_.kernels->layout == (*kernels::SelectTable(""))->layout) GTEST_SKIP() << "one layout";
  ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(store->reattached);
}

TEST_F(WeightLoaderTest, RefusesAnotherFile) {
  plan_.model_fingerprint ^= 1;
  EXPECT_THAT(LoadWeights(plan_, options_, &pool_),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::AllOf(HasSubstr("model.gguf"), HasSubstr("fingerprint"))));
}

TEST_F(WeightLoaderTest, NamesTheMissingFile) {
  plan_.model_path += ".not";
  const auto store = LoadWeights(plan_, options_, &pool_);
  EXPECT_FALSE(store.ok());
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("model.gguf.not"));
}

TEST_F(WeightLoaderTest, CanBeStoppedAndBegunAgain) {
  options_.progress = [](uint64_t, uint64_t) { return false; };
  EXPECT_THAT(LoadWeights(plan_, options_, &pool_),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  // What was not completed is not mistaken for weights.
  options_.progress = nullptr;
  ASSERT_OK_AND_ASSIGN(const auto store, LoadWeights(plan_, options_, &pool_));
  EXPECT_FALSE(store->reattached);
}

}  // namespace
}  // namespace dovetail::worker
