// Tokenizer speed on English text. Counter: bytes of text per second, one thread.
// Needs DOVETAIL_DATA; a vocabulary that is absent is reported as skipped.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "benchmark/benchmark.h"
#include "model/gguf/gguf_file.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::model {
namespace {

std::string DataFile(const std::string& relative) {
  const char* root = std::getenv("DOVETAIL_DATA");
  return (root == nullptr ? std::string("../shared/data") : std::string(root)) + "/" + relative;
}

void BM_Encode(benchmark::State& state, const char* vocabulary) {
  std::ifstream in(DataFile("text/gutenberg-2701-moby-dick.txt"), std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  const auto file = GgufFile::Open(
      DataFile(std::string("tokenizers/gguf-vocab/ggml-vocab-") + vocabulary + ".gguf"));
  if (!file.ok() || text.empty()) {
    state.SkipWithError("no data: set DOVETAIL_DATA");
    return;
  }
  const auto tokenizer = Tokenizer::Create(**file);
  if (!tokenizer.ok()) {
    state.SkipWithError(std::string(tokenizer.status().message()).c_str());
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

BENCHMARK_CAPTURE(BM_Encode, gpt2, "gpt-2")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, starcoder, "starcoder")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, deepseek_llm, "deepseek-llm")->Arg(4 << 10)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Encode, llama_spm, "llama-spm")->Arg(4 << 10)->Arg(1 << 20);

}  // namespace
}  // namespace dovetail::model
