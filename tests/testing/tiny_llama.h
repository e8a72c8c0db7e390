// WriteTinyLlama: a random model of the llama architecture, small enough to run anywhere, in any
// weight type that can be computed with. The same options give the same bytes on every machine.
#ifndef DOVETAIL_TESTS_TESTING_TINY_LLAMA_H_
#define DOVETAIL_TESTS_TESTING_TINY_LLAMA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/weight_type.h"
#include "tests/testing/gguf_writer.h"

namespace dovetail::testing {

struct TinyLlamaOptions {
  int layers = 2;
  int hidden = 64;  // for 256-element types a multiple of 256, as ffn
  int heads = 4;    // hidden / heads is the head dimension
  int kv_heads = 2;
  int ffn = 128;
  int experts = 0;  // above 0: every mlp is a mixture, as Mixtral's, and ffn is an expert's
  int experts_used = 2;
  int vocab = 320;  // with a tokenizer at least 288
  int context = 256;
  WeightType type = WeightType::kF32;  // of all matrices; norms are F32
  bool tied = false;                   // no output.weight
  // A byte-level BPE (pre-tokenizer "smollm") with a few merges, ChatML's special tokens and its
  // template; false writes "no_vocab".
  bool tokenizer = true;
  uint64_t seed = 1;
};

// The writer, for tests that add to it or leave something out of it before writing.
GgufWriter MakeTinyLlama(const TinyLlamaOptions& options = {});
void WriteTinyLlama(const std::string& path, const TinyLlamaOptions& options = {});

// `rows` rows of `cols` random weights as GGUF stores them, about standard deviation `scale`.
std::string RandomWeights(WeightType type, int64_t rows, int64_t cols, double scale, uint64_t seed);

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_TINY_LLAMA_H_
