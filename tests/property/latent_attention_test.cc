// Latent attention on random models that no golden has: old files with one quantised attn_kv_b,
// heads that are no power of two, and sequences longer than a split of attention and a tile of
// rows.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "model/model_config.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail {
namespace {

using testing::DequantiseTensor;
using testing::EvaluateSequence;
using testing::GgufWriter;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::Rms;
using testing::RmsOfDifference;
using testing::SameBytes;

constexpr int kTokens = 300;
constexpr int kLayers = 2, kHidden = 256, kFfn = 512, kVocab = 320;
constexpr int kHeads = 20, kNope = 32, kRope = 16, kValue = 32, kRank = 256;

struct Options {
  WeightType type = WeightType::kF32;  // of what reads 256 columns
  WeightType k_b_type = WeightType::kF32;
  bool merged = false;
  int q_lora_rank = 0;
};

std::string TempModel(const std::string& name) {
  return testing::TempFile(absl::StrCat("latent_attention_", name, ".gguf"));
}

void AddMetadata(GgufWriter& writer, const Options& options) {
  const auto put = [&](const std::string& key, uint32_t value) {
    writer.AddUint32("deepseek2." + key, value);
  };
  writer.AddString("general.architecture", "deepseek2");
  put("block_count", kLayers);
  put("context_length", 512);
  put("embedding_length", kHidden);
  put("feed_forward_length", kFfn);
  put("vocab_size", kVocab);
  put("attention.head_count", kHeads);
  put("attention.head_count_kv", options.merged ? kHeads : 1);
  put("attention.kv_lora_rank", kRank);
  if (options.q_lora_rank > 0) put("attention.q_lora_rank", options.q_lora_rank);
  put("attention.key_length", options.merged ? kNope + kRope : kRank + kRope);
  put("attention.value_length", options.merged ? kValue : kRank);
  if (!options.merged) {
    put("attention.key_length_mla", kNope + kRope);
    put("attention.value_length_mla", kValue);
  }
  put("rope.dimension_count", kRope);
  // Every layer is dense.
  put("leading_dense_block_count", kLayers);
  put("expert_count", 2);
  put("expert_used_count", 1);
  writer.AddFloat32("deepseek2.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddString("tokenizer.ggml.model", "no_vocab");
}

class ModelWriter {
 public:
  explicit ModelWriter(const Options& options) : options_(options) {
    AddMetadata(writer_, options);
    Matrix("token_embd", kVocab, kHidden, 3.0);
    for (int layer = 0; layer < kLayers; ++layer) AddLayer(absl::StrCat("blk.", layer, "."));
    Norm("output_norm", kHidden);
    Matrix("output", kVocab, kHidden, 3.0);
  }
  GgufWriter& writer() { return writer_; }

 private:
  void AddLayer(const std::string& blk) {
    const int q = kHeads * (kNope + kRope);
    Norm(blk + "attn_norm", kHidden);
    if (options_.q_lora_rank > 0) {
      Matrix(blk + "attn_q_a", options_.q_lora_rank, kHidden, 1.0);
      Norm(blk + "attn_q_a_norm", options_.q_lora_rank);
      Matrix(blk + "attn_q_b", q, options_.q_lora_rank, 1.5);
    } else {
      Matrix(blk + "attn_q", q, kHidden, 1.5);
    }
    Matrix(blk + "attn_kv_a_mqa", kRank + kRope, kHidden, 1.0);
    Norm(blk + "attn_kv_a_norm", kRank);
    if (options_.merged) {
      Matrix(blk + "attn_kv_b", kHeads * (kNope + kValue), kRank, 1.0);
    } else {
      OfHeads(blk + "attn_k_b", options_.k_b_type, kRank, kNope);
      OfHeads(blk + "attn_v_b", options_.type, kValue, kRank);
    }
    Matrix(blk + "attn_output", kHidden, kHeads * kValue, 1.0, WeightType::kQ8_0);
    Norm(blk + "ffn_norm", kHidden);
    Matrix(blk + "ffn_gate", kFfn, kHidden, 1.0);
    Matrix(blk + "ffn_up", kFfn, kHidden, 1.0);
    Matrix(blk + "ffn_down", kHidden, kFfn, 1.0);
  }
  void Matrix(const std::string& name, int rows, int cols, double gain) {
    Matrix(name, rows, cols, gain, options_.type);
  }
  void Matrix(const std::string& name, int rows, int cols, double gain, WeightType type) {
    writer_.AddTensor(name + ".weight", type,
                      {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)},
                      testing::RandomWeights(type, rows, cols, gain / std::sqrt(cols), ++seed_));
  }
  void OfHeads(const std::string& name, WeightType type, int rows, int cols) {
    writer_.AddTensor(
        name + ".weight", type,
        {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), static_cast<uint64_t>(kHeads)},
        testing::RandomWeights(type, int64_t{kHeads} * rows, cols, 1 / std::sqrt(kRank), ++seed_));
  }
  void Norm(const std::string& name, int cols) {
    std::string data;
    for (int i = 0; i < cols; ++i) data += GgufWriter::Bytes(1 + 0.1f * static_cast<float>(i % 3));
    writer_.AddTensor(name + ".weight", WeightType::kF32, {static_cast<uint64_t>(cols)}, data);
  }

  Options options_;
  GgufWriter writer_;
  uint64_t seed_ = 5;
};

void ExpectRightAndSameEverywhere(const Options& options, const std::string& name) {
  const std::string path = TempModel(name), exact_path = TempModel(name + "_f32");
  ModelWriter model(options);
  model.writer().Write(path);
  for (GgufWriter::Tensor& tensor : model.writer().tensors()) DequantiseTensor(&tensor);
  model.writer().Write(exact_path);

  LocalPipelineOptions run;
  run.gguf = exact_path;
  ASSERT_OK_AND_ASSIGN(const Logits exact, EvaluateSequence(run, kTokens, kVocab, 512));
  run.gguf = path;
  ASSERT_OK_AND_ASSIGN(const Logits expected, EvaluateSequence(run, kTokens, kVocab, 512));
  const double size = Rms(exact), error = RmsOfDifference(exact, expected);
  std::printf("%s: relative error %.4f\n", name.c_str(), error / size);
  EXPECT_GT(size, 0.01);
  // Eight-bit activations; a wrong slice or order of heads would be all of it.
  EXPECT_LT(error, 0.06 * size) << name;
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    if (table->isa == kernels::Isa::kScalar && options.q_lora_rank == 0) continue;  // slow
    run.kernels = table;
    run.cuts = {2, 4};
    run.num_threads = 3;
    ASSERT_OK_AND_ASSIGN(const Logits actual, EvaluateSequence(run, kTokens, kVocab, 70));
    ASSERT_TRUE(SameBytes(expected, actual)) << name << ", " << table->name;
  }
  std::remove(path.c_str());
  std::remove(exact_path.c_str());
}

TEST(LatentAttentionModels, TwoTensorsOfHeads) {
  ExpectRightAndSameEverywhere({.type = WeightType::kQ8_0, .k_b_type = WeightType::kQ8_0}, "q8_0");
  ExpectRightAndSameEverywhere(
      {.type = WeightType::kQ4_K, .k_b_type = WeightType::kQ5_0, .q_lora_rank = 256}, "q4_k");
}

TEST(LatentAttentionModels, OneQuantisedTensorOfKeysAndValues) {
  ExpectRightAndSameEverywhere({.type = WeightType::kQ8_0, .merged = true}, "merged_q8_0");
  ExpectRightAndSameEverywhere({.type = WeightType::kQ4_K, .merged = true, .q_lora_rank = 256},
                               "merged_q4_k");
  ExpectRightAndSameEverywhere({.type = WeightType::kF16, .merged = true}, "merged_f16");
}

// A scale that is a power of two is exact wherever it is applied.
TEST(LatentAttentionModels, ScalesOfMatrices) {
  for (const bool merged : {false, true}) {
    const Options options = {.merged = merged, .q_lora_rank = 256};
    ModelWriter model(options), folded(options);
    for (ModelWriter* writer : {&model, &folded}) {
      for (GgufWriter::Tensor& tensor : writer->writer().tensors()) DequantiseTensor(&tensor);
    }
    float scale = 0.25f;
    for (size_t i = 0, count = model.writer().tensors().size(); i < count; ++i) {
      const GgufWriter::Tensor tensor = model.writer().tensors()[i];
      if (tensor.shape.size() < 2 || tensor.name == "token_embd.weight") continue;
      scale = scale >= 4 ? 0.25f : 2 * scale;
      model.writer().AddTensor(model::ScaleTensor(tensor.name), WeightType::kF32, {1},
                               GgufWriter::Bytes(scale));
      testing::ScaleParts({scale}, &folded.writer().tensors()[i]);
    }
    LocalPipelineOptions run;
    run.gguf = TempModel("scaled");
    model.writer().Write(run.gguf);
    ASSERT_OK_AND_ASSIGN(const Logits scaled, EvaluateSequence(run, kTokens, kVocab, 512));
    folded.writer().Write(run.gguf);
    ASSERT_OK_AND_ASSIGN(const Logits expected, EvaluateSequence(run, kTokens, kVocab, 512));
    EXPECT_TRUE(SameBytes(expected, scaled)) << "merged " << merged;
    std::remove(run.gguf.c_str());
  }
}

}  // namespace
}  // namespace dovetail
