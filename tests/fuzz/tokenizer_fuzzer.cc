// The first byte chooses what is fuzzed: the text of a fixed vocabulary, or the vocabulary itself.
// Texts that are encoded must decode to themselves, and the same in a stream.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab_data.h"
#include "tests/unit/model/tokenizer_fixture.h"

namespace dovetail::model {
namespace {

std::vector<std::unique_ptr<Tokenizer>> MakeTokenizers() {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  VocabData vocab = testing::SmallBpe({"a b", "Ġ a", "Ã ©", "ð Ł", "e r"});
  for (absl::string_view pre : PreTokenizerNames()) {
    vocab.pre = std::string(pre);
    tokenizers.push_back(*CreateTokenizer(vocab));
  }
  tokenizers.push_back(*CreateTokenizer(testing::SmallSpm({"▁", "a", "▁a", "é", "er", "a▁"})));
  return tokenizers;
}

void Check(bool condition) {
  if (!condition) std::abort();
}

void FuzzText(uint8_t choice, absl::string_view text) {
  static const auto* const tokenizers = new auto(MakeTokenizers());
  const Tokenizer& tokenizer = *(*tokenizers)[choice % tokenizers->size()];
  const auto ids = tokenizer.Encode(text, {false, (choice & 0x40) != 0});
  if (!ids.ok()) return;
  const std::string decoded = tokenizer.Decode(*ids, true);
  // SentencePiece puts a space after every special token, and its own space character reads as one.
  Check(decoded == text || tokenizer.drops_leading_space());
  StreamingDetokenizer stream(&tokenizer, true, true);
  std::string joined;
  for (TokenId id : *ids) joined += stream.Push(id);
  Check(joined + stream.Finish() == decoded);
}

// Lines: model, pre, then "type score token"; after an empty line merges.
void FuzzVocabulary(absl::string_view bytes) {
  VocabData vocab;
  int line_number = 0;
  bool in_merges = false;
  for (absl::string_view line : absl::StrSplit(bytes, '\n')) {
    if (line_number == 0) vocab.model = line.empty() ? "gpt2" : "llama";
    if (line_number == 1) vocab.pre = std::string(line);
    if (line_number++ < 2) continue;
    if (line.empty()) {
      in_merges = true;
    } else if (in_merges) {
      vocab.merges.emplace_back(line);
    } else {
      vocab.types.push_back(static_cast<TokenType>(1 + line[0] % 6));
      vocab.scores.push_back(line.size() > 1 ? static_cast<float>(line[1]) : 0.0f);
      vocab.tokens.emplace_back(line.size() > 2 ? line.substr(2) : "");
    }
  }
  vocab.bos = 0;
  const auto tokenizer = CreateTokenizer(std::move(vocab));
  if (!tokenizer.ok()) return;
  const auto ids = (*tokenizer)->Encode("hello <s> wörld\n", {true, true});
  if (ids.ok()) (void)(*tokenizer)->Decode(*ids, true);
}

}  // namespace
}  // namespace dovetail::model

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 0x80) != 0) {
    dovetail::model::FuzzVocabulary(rest);
  } else {
    dovetail::model::FuzzText(data[0], rest);
  }
  return 0;
}
