// Tokenizer speed on English text. Counter: bytes of text per second, one thread.
// Needs DOVETAIL_DATA; a vocabulary that is absent is reported as skipped.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "benchmark/benchmark.h"
#include "model/gguf/gguf_file.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::model {
namespace {

std::string DataFile(const std::string& relative) {
  const char* root = std::getenv("DOVETAIL_DATA");
  return (root == nullptr ? std::string("../shared/data") : std::string(root)) + "/" + relative;
}

// Encodes the book in pieces of state.range(0) bytes.
void EncodeBook(benchmark::State& state,
                const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer) {
  std::ifstream in(DataFile("text/gutenberg-2701-moby-dick.txt"), std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  if (!tokenizer.ok() || text.empty()) {
    state.SkipWithError("no data: set DOVETAIL_DATA");
    return;
  }
  const auto piece_bytes = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    for (size_t at = 0; at < text.size();) {
      size_t end = std::min(text.size(), at + piece_bytes);
      while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;  // whole characters
      const auto ids = (*tokenizer)->Encode(text.substr(at, end - at), {});
      if (!ids.ok()) state.SkipWithError(std::string(ids.status().message()).c_str());
      benchmark::DoNotOptimize(ids);
      at = end;
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

// `pre`: in place of the file's own pre-tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path, const std::string& pre) {
  DT_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(DataFile(path)));
  DT_ASSIGN_OR_RETURN(VocabData vocab, ReadVocabData(*file));
  if (!pre.empty()) vocab.pre = pre;
  return CreateTokenizer(std::move(vocab));
}

void BM_Encode(benchmark::State& state, const char* vocabulary) {
  EncodeBook(state,
             Load(std::string("tokenizers/gguf-vocab/ggml-vocab-") + vocabulary + ".gguf", ""));
}

// The patterns, with a vocabulary of 6000 tokens.
void BM_PreTokenizer(benchmark::State& state, const char* pre) {
  EncodeBook(state, Load("tokenizers/pre-tokenizers/vocab.gguf", pre));
}

BENCHMARK_CAPTURE(BM_Encode, gpt2, "gpt-2")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, starcoder, "starcoder")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, deepseek_llm, "deepseek-llm")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, llama_spm, "llama-spm")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, llama_bpe, "llama-bpe")->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, qwen2, "qwen2")->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, gpt_4o, "gpt-4o")->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, kimi_k2, "kimi-k2")->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, deepseek_v3, "deepseek-v3")->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_PreTokenizer, tekken, "tekken")->Arg(1 << 20);

}  // namespace
}  // namespace dovetail::model
